"""Filesystems on a disk, in memory and on flash."""

from __future__ import annotations

import struct
import zlib
from functools import partial
from pathlib import Path

from tests.filesystems.recipe import Full, Place, Recipe
from tests.filesystems.stage import Stage
from tests.live.guest import eventually, run


def _disk(fstype: str, mib: int, *make: str, options: str = "") -> partial[Path]:
    """A loop device of ``mib``, made with ``make``."""
    return partial(Stage.disk, fstype=fstype, mib=mib, make=make, options=options)


def _ext(which: str, *make: str, options: str = "") -> partial[Path]:
    return _disk(which, 32, f"mkfs.{which}", "-q", "-F", "-b", "4096", "-m", "0", *make, options=options)


def _reflinked(stage: Stage) -> Path:
    """The pages to be written lie in extents that another file shares."""
    place = stage.disk("xfs", 320, ("mkfs.xfs", "-q", "-f", "-m", "reflink=1"))
    for name in ("first", "again"):
        with (place / name).open("wb") as stream:
            for _ in range(31):
                stream.write(b"x" * (256 << 10))
        run("cp", "--reflink=always", str(place / name), str(place / f"{name}-copy"))
    run("sync", "-f", str(place))
    Path("/proc/sys/vm/drop_caches").write_text("3")
    return place


def _nodatacow(stage: Stage) -> Path:
    place = stage.disk("btrfs", 160, ("mkfs.btrfs", "-q", "-f"))
    run("chattr", "+C", str(place))
    return place


def _subvolume(stage: Stage) -> Place:
    place = stage.disk("btrfs", 160, ("mkfs.btrfs", "-q", "-f"))
    run("btrfs", "subvolume", "create", str(place / "volume"))
    return Place(place / "volume", seen=place)


def _mtd(stage: Stage, mib: int) -> None:
    run("modprobe", "mtdram", f"total_size={mib << 10}", "erase_size=128")
    stage.later("modprobe", "-r", "mtdram")


def _ubifs(stage: Stage) -> Path:
    _mtd(stage, 48)
    run("modprobe", "ubi")
    run("ubiattach", "-m", "0", "-d", "0")
    stage.later("ubidetach", "-d", "0")
    run("ubimkvol", "/dev/ubi0", "-N", "volume", "-m")
    return stage.mount("ubifs", "ubi0:volume")


def _jffs2(stage: Stage) -> Path:
    _mtd(stage, 16)
    run("modprobe", "mtdblock")
    return stage.mount("jffs2", "/dev/mtdblock0")


def _zonefs(stage: Stage) -> Path:
    """A null_blk with ten zones that are written at random places; the first holds the superblock."""
    run("modprobe", "null_blk", "nr_devices=0")
    stage.later("modprobe", "-r", "null_blk")
    config = Path("/sys/kernel/config")
    if not (config / "nullb").exists():
        run("mount", "-t", "configfs", "none", str(config))
    disk = config / "nullb" / "zones"
    disk.mkdir()
    stage.later("rmdir", str(disk))
    for name, value in (("size", 96), ("memory_backed", 1), ("zoned", 1), ("zone_size", 8), ("zone_nr_conv", 10),
                        ("blocksize", 4096), ("power", 1)):  # fmt: skip
        (disk / name).write_text(str(value))
    # struct zonefs_super, fs/zonefs/zonefs.h; the sum is crc32(~0, ...) over all of it, with 0 for itself.
    head, tail = struct.pack("<I", 0x5A4F4653), bytes(64 + 16 + 8) + struct.pack("<3I", 0, 0, 0o640) + bytes(3988)
    crc = zlib.crc32(head + bytes(4) + tail) ^ 0xFFFFFFFF
    Path("/dev/zones").write_bytes(head + struct.pack("<I", crc) + tail)
    return stage.mount("zonefs", "/dev/zones")


def dax(stage: Stage, fstype: str, make: tuple[str, ...]) -> Path:
    """On memory that the kernel was told to take for a persistent one (memmap=)."""
    run("modprobe", "-a", "nd_e820", "nd_pmem", fstype)
    assert eventually(Path("/dev/pmem0").exists)
    run(*make, "/dev/pmem0")
    return stage.mount(fstype, "/dev/pmem0", "dax=always")


def _small_dax(stage: Stage, fstype: str, make: tuple[str, ...]) -> Path:
    """Without huge pages, which test_dax.py is for."""
    stage.small_pages()
    return dax(stage, fstype, make)


def _hugetlbfs(stage: Stage) -> Path:
    pages = Path("/proc/sys/vm/nr_hugepages")
    pages.write_text("52")
    stage.later("sh", "-c", f"echo 0 >{pages}")
    return stage.mount("hugetlbfs", "none", "size=104m")


def _tmpfs(stage: Stage) -> Path:
    return stage.mount("tmpfs", "none", "size=16m")


def _ramfs(stage: Stage) -> Path:
    return stage.mount("ramfs", "none")


def _overlay(stage: Stage) -> Place:
    """Files of an overlay are told as those of its upper directory's filesystem."""
    upper = stage.backing()
    for name in ("lower", "upper", "work"):
        (upper / name).mkdir()
    layers = f"lowerdir={upper}/lower,upperdir={upper}/upper,workdir={upper}/work"
    return Place(stage.mount("overlay", "overlay", layers), seen=upper, fills=upper)


_EXT4 = "ext4_page_mkwrite"
_BTRFS = ("mkfs.btrfs", "-q", "-f")
_DAX = (
    "A DAX mapping has no page to be asked for: a first write is a call of vm_ops->fault or huge_fault, one to a page "
    "mapped read-only of vm_ops->pfn_mkwrite (wp_pfn_shared); they are counted as paths of their own."
)
_NO_NTFS3 = "CONFIG_NTFS3_FS is not set in Debian's configuration"
_NO_NTFS = "Debian sets no CONFIG_NTFS_FS; the driver with a page_mkwrite of its own came after 6.18"
_PLAIN = "filemap_page_mkwrite"

RECIPES = (
    Recipe("ext4", "ext4", "ext4", _EXT4, _ext("ext4"), errno="ENOSPC"),
    Recipe("ext4-nodelalloc", "ext4", "ext4", _EXT4, _ext("ext4", options="nodelalloc"), errno="ENOSPC"),
    Recipe("ext3", "ext4", "ext3", _EXT4, _ext("ext3"), errno="ENOSPC", short=True),
    Recipe("ext2", "ext4", "ext2", _EXT4, _ext("ext2"), errno="ENOSPC"),
    Recipe("xfs", "xfs", "xfs", "xfs_filemap_page_mkwrite", _disk("xfs", 320, "mkfs.xfs", "-q", "-f"), errno="ENOSPC"),
    Recipe("xfs-reflinked", "xfs", "xfs", "xfs_filemap_page_mkwrite", _reflinked, errno="ENOSPC"),
    Recipe("btrfs", "btrfs", "btrfs", "btrfs_page_mkwrite", _disk("btrfs", 160, *_BTRFS), errno="ENOSPC"),
    Recipe("btrfs-nodatacow", "btrfs", "btrfs", "btrfs_page_mkwrite", _nodatacow, errno="ENOSPC"),
    Recipe(
        "btrfs-compressed", "btrfs", "btrfs", "btrfs_page_mkwrite",
        _disk("btrfs", 160, *_BTRFS, options="compress-force=zstd"), errno="ENOSPC",
    ),
    Recipe("btrfs-subvolume", "btrfs", "btrfs", "btrfs_page_mkwrite", _subvolume, errno="ENOSPC"),
    Recipe(
        "ext4-dax", "ext4", "ext4", "ext4_dax_fault",
        partial(_small_dax, fstype="ext4", make=("mkfs.ext4", "-q", "-F", "-b", "4096")),
        errno="ENOSPC", dax="ext4_dax_fault", why=_DAX,
    ),
    Recipe(
        "xfs-dax", "xfs", "xfs", "xfs_filemap_fault",
        partial(_small_dax, fstype="xfs", make=("mkfs.xfs", "-q", "-f", "-m", "reflink=0")),
        errno="ENOSPC", dax="xfs_filemap_pfn_mkwrite", why=_DAX,
    ),
    Recipe("f2fs", "f2fs", "f2fs", "f2fs_vm_page_mkwrite", _disk("f2fs", 64, "mkfs.f2fs", "-q", "-f"), errno="ENOSPC"),
    Recipe(
        "nilfs2", "nilfs2", "nilfs2", "nilfs_page_mkwrite",
        _disk("nilfs2", 64, "mkfs.nilfs2", "-q", "-f", "-B", "256"), inferred="ENOSPC", short=True,
    ),
    Recipe(
        "gfs2", "gfs2", "gfs2", "gfs2_page_mkwrite",
        _disk("gfs2", 96, "mkfs.gfs2", "-q", "-O", "-p", "lock_nolock", "-j", "1", "-J", "16"), errno="ENOSPC",
    ),
    Recipe(
        "ocfs2", "ocfs2", "ocfs2", "ocfs2_page_mkwrite",
        _disk("ocfs2", 64, "mkfs.ocfs2", "-q", "-F", "-M", "local", "-N", "1", "-b", "4096", "-C", "4096",
              "-J", "size=8M", "--fs-features=local,sparse,unwritten", options="heartbeat=none"),
        errno="ENOSPC",
    ),
    Recipe("ubifs", "ubifs", "ubifs", "ubifs_vm_page_mkwrite", _ubifs, errno="ENOSPC",),
    Recipe(
        "jffs2", "jffs2", "jffs2", "", _jffs2, refused="EINVAL", short=True,
        why="Its mmap is generic_file_readonly_mmap, which refuses what may be written and is shared.",
    ),
    Recipe(
        "exfat", "exfat", "exfat", {(0, 0): _PLAIN, (6, 12): "exfat_page_mkwrite"},
        _disk("exfat", 32, "mkfs.exfat"), Full.GIVEN,
    ),
    Recipe(
        "vfat", "vfat", "vfat", _PLAIN, _disk("vfat", 48, "mkfs.vfat", "-F", "32", "-s", "1"), Full.GIVEN,
    ),
    Recipe(
        "udf", "udf", "udf", {(0, 0): _PLAIN, (6, 12): "udf_page_mkwrite"},
        _disk("udf", 32, "mkudffs", "--media-type=hd", "--blocksize=512"),
        {(0, 0): Full.WRITEBACK, (6, 12): Full.FAULT}, {(0, 0): "", (6, 12): "ENOSPC"},
    ),
    Recipe(
        "ntfs3", "ntfs3", "ntfs3", _PLAIN, _disk("ntfs3", 32, "mkntfs", "-F", "-Q", "-q", options="sparse"), Full.MMAP,
        absent={(0, 0): _NO_NTFS3, (6, 12): "", (7, 0): _NO_NTFS3},
    ),
    Recipe(
        "ntfs", "ntfs", "ntfs", "ntfs_filemap_page_mkwrite", _disk("ntfs", 32, "mkntfs", "-F", "-Q", "-q"),
        inferred="ENOSPC", delays=True, absent={(0, 0): _NO_NTFS, (7, 0): ""},
    ),
    Recipe("jfs", "jfs", "jfs", _PLAIN, _disk("jfs", 32, "mkfs.jfs", "-q"), Full.WRITEBACK,),
    Recipe("minix", "minix", "minix", _PLAIN, _disk("minix", 32, "mkfs.minix", "-3"), Full.WRITEBACK),
    Recipe(
        "zonefs", "zonefs", "zonefs", "zonefs_filemap_page_mkwrite", _zonefs, Full.GIVEN, files=("cnv/1", "cnv/2"),
    ),
    Recipe("overlay", "overlay", "ext4", _EXT4, _overlay, errno="ENOSPC", short=True),
    Recipe("ramfs", "", "ramfs", _PLAIN, _ramfs, Full.ENDLESS),
    Recipe(
        "tmpfs", "", "tmpfs", "", _tmpfs, errno="ENOSPC",
        why="Its pages are not written back, and are mapped writable at once (shmem_vm_ops has no page_mkwrite).",
    ),
    Recipe(
        "hugetlbfs", "", "hugetlbfs", "", _hugetlbfs, errno="ENOSPC", stride=2 << 20,
        why="Its pages are not written back, and have faults of their own (hugetlb_fault).",
    ),
)  # fmt: skip
