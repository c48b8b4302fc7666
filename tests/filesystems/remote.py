"""Filesystems whose files are elsewhere: behind a server, a daemon, or a cache."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from tests.filesystems.openafs import afs
from tests.filesystems.recipe import Full, Place, Recipe
from tests.filesystems.stage import Stage, listening
from tests.filesystems.virtiofs import TAG
from tests.live.guest import eventually, run

_SAMBA = """\
[global]
server role = standalone server
interfaces = lo
bind interfaces only = yes
disable netbios = yes
smb ports = 445
lock directory = {0}
state directory = {0}
cache directory = {0}
private dir = {0}
pid directory = {0}
ncalrpc dir = {0}
log file = {0}/log
passdb backend = smbpasswd:{0}/smbpasswd
map to guest = never
[x]
path = {1}
read only = no
"""
_CACHE = "dir {0}\ntag mkwrite\nbrun 10%\nbcull 7%\nbstop 3%\nfrun 10%\nfcull 7%\nfstop 3%\n"


def nfsd(stage: Stage, export: Path) -> None:
    """Export a directory."""
    run("modprobe", "-a", "nfsd", "nfs")
    Path("/run/rpcbind").mkdir(exist_ok=True)
    stage.serve("rpcbind", "-f", "-w", ready=listening(111))
    if not Path("/proc/fs/nfsd/threads").exists():
        run("mount", "-t", "nfsd", "nfsd", "/proc/fs/nfsd")
    run("exportfs", "-i", "-o", "rw,no_root_squash,insecure,no_subtree_check,sync,fsid=0", f"127.0.0.1:{export}")
    stage.later("exportfs", "-ua")
    run("rpc.nfsd", "--lease-time", "10", "--grace-time", "10", "4")
    stage.later("rpc.nfsd", "0")
    with suppress(OSError):  # EBUSY: newer kernels say so where there is no grace to be ended
        Path("/proc/fs/nfsd/v4_end_grace").write_text("Y")
    stage.serve("rpc.mountd", "-F", "-p", "20048", ready=listening(20048))


def _nfs3(stage: Stage, more: str = "") -> Place:
    export = stage.backing()
    nfsd(stage, export)
    source = f"127.0.0.1:{export}"
    place = stage.mount("nfs", source, f"vers=3,nolock,proto=tcp,mountproto=tcp{more}")
    return Place(place, fills=export, peer=source)


def _nfs4(stage: Stage, more: str = "") -> Place:
    export = stage.backing()
    nfsd(stage, export)
    place = stage.mount("nfs", "127.0.0.1:/", f"vers=4.2,proto=tcp{more}")
    return Place(place, fills=export, peer="127.0.0.1:/")


def cachefiles(stage: Stage) -> Path:
    """FS-Cache, with an ext4 for the cache; where that is."""
    device = stage.loop(32, "cache.img")
    run("mkfs.ext4", "-q", device)
    cache = stage.mount("ext4", device, "user_xattr", stage.root / "cache")
    config = stage.root / "cachefilesd.conf"
    config.write_text(_CACHE.format(cache))
    run("modprobe", "cachefiles")
    stage.serve("cachefilesd", "-n", "-f", str(config), ready=(cache / "cache").exists)
    return cache


def _cached(stage: Stage, nfs: Callable[[Stage, str], Place]) -> Place:
    """FS-Cache beneath ``nfs``."""
    cache = cachefiles(stage)
    place = nfs(stage, ",fsc")
    # Read through the cache, which is a file there then.
    (place.path / "cached").write_bytes(b"x" * 4096)
    run("sync", "-f", str(place.path))
    Path("/proc/sys/vm/drop_caches").write_text("3")
    (place.path / "cached").read_bytes()
    assert eventually(lambda: any(path.is_file() for path in (cache / "cache").rglob("*")))
    return place


def _cifs(stage: Stage) -> Place:
    export = stage.backing()
    state = stage.root / "samba"
    state.mkdir()
    config = state / "smb.conf"
    config.write_text(_SAMBA.format(state, export))
    run("sh", "-c", f"printf 'secret\\nsecret\\n' | smbpasswd -c {config} -s -a root")
    stage.serve("smbd", "-F", "--no-process-group", "-s", str(config), ready=listening(445))
    run("modprobe", "cifs")
    place = stage.mount("cifs", "//127.0.0.1/x", "username=root,password=secret,vers=3.1.1")
    return Place(place, fills=export, peer="//127.0.0.1/x")


def _9p(stage: Stage, cache: str) -> Place:
    export = stage.backing()
    run("modprobe", "-a", "9p", "9pnet")
    stage.serve("diod", "-f", "-n", "-l", "127.0.0.1:5640", "-e", str(export), "-S", "-U", "root", "-c", "/dev/null",
                ready=listening(5640))  # fmt: skip
    options = f"trans=tcp,port=5640,version=9p2000.L,uname=root,access=client,aname={export},cache={cache}"
    return Place(stage.mount("9p", "127.0.0.1", options), fills=export, peer="127.0.0.1")


def _fuse2fs(stage: Stage) -> Place:
    run("modprobe", "fuse")
    image = stage.root / "img"
    with image.open("wb") as stream:
        stream.truncate(32 << 20)
    run("mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", "-O", "^has_journal", str(image))
    stage.serve("fuse2fs", "-f", str(image), str(stage.place), "-o", "rw", ready=stage.place.is_mount)
    stage.later("umount", str(stage.place))
    return Place(stage.place, peer="fuse2fs")


def _fuse_overlayfs(stage: Stage, writeback: int) -> Place:
    upper = stage.backing()
    run("modprobe", "fuse")
    for name in ("lower", "upper", "work"):
        (upper / name).mkdir()
    layers = f"lowerdir={upper}/lower,upperdir={upper}/upper,workdir={upper}/work,writeback={writeback}"
    stage.serve("fuse-overlayfs", "-f", "-o", layers, str(stage.place), ready=stage.place.is_mount)
    stage.later("umount", str(stage.place))
    return Place(stage.place, fills=upper, peer="fuse-overlayfs")


def _ntfs3g(stage: Stage) -> Place:
    device = stage.loop(32)
    run("mkntfs", "-F", "-Q", "-q", device)
    run("modprobe", "fuse")
    stage.serve("ntfs-3g", "-o", "big_writes,no_detach", device, str(stage.place), ready=stage.place.is_mount)
    stage.later("umount", str(stage.place))
    return Place(stage.place, peer="ntfs-3g")


def _virtiofs(stage: Stage) -> Place:
    return Place(stage.mount("virtiofs", TAG), peer=TAG)


_FUSE = "fuse_page_mkwrite"
_NFS = "nfs_vm_page_mkwrite"

RECIPES = (
    Recipe("fuse2fs", "fuse", "fuse", _FUSE, _fuse2fs, Full.WRITEBACK, repeats=True, short=True),
    Recipe(
        "fuse-overlayfs", "fuse", "fuse", _FUSE, partial(_fuse_overlayfs, writeback=0), Full.WRITEBACK,
        repeats=True,
    ),
    Recipe(
        "fuse-overlayfs-writeback", "fuse", "fuse", _FUSE, partial(_fuse_overlayfs, writeback=1), Full.WRITEBACK,
        repeats=True,
    ),
    Recipe("ntfs-3g", "fuse", "fuseblk", _FUSE, _ntfs3g, Full.WRITEBACK, repeats=True),
    Recipe("nfs3", "nfsv3", "nfs", _NFS, _nfs3, Full.WRITEBACK),
    Recipe("nfs4.2", "nfsv4", "nfs4", _NFS, _nfs4, Full.WRITEBACK),
    Recipe("nfs3-fscache", "nfsv3", "nfs", _NFS, partial(_cached, nfs=_nfs3), Full.WRITEBACK),
    Recipe("nfs4.2-fscache", "nfsv4", "nfs4", _NFS, partial(_cached, nfs=_nfs4), Full.WRITEBACK),
    Recipe("cifs", "cifs", "cifs", "cifs_page_mkwrite", _cifs, Full.WRITEBACK),
    Recipe("9p-loose", "9p", "9p", "v9fs_vm_page_mkwrite", partial(_9p, cache="loose"), Full.WRITEBACK),
    Recipe("9p-mmap", "9p", "9p", "v9fs_vm_page_mkwrite", partial(_9p, cache="mmap"), Full.WRITEBACK),
    Recipe("9p-none", "9p", "9p", "", partial(_9p, cache="none"), refused="EINVAL",
           why="Without a cache its mmap is generic_file_readonly_mmap."),
    Recipe("afs", "kafs", "afs", "afs_page_mkwrite", afs, Full.WRITEBACK),
    Recipe("ceph", "ceph", "ceph", "ceph_page_mkwrite",
           unrun="It needs a monitor, an object store and a metadata server: more than a guest's minutes allow."),
    Recipe("orangefs", "orangefs", "pvfs2", "orangefs_page_mkwrite", unrun="Debian has no server for it."),
    Recipe("virtiofs", "virtiofs", "virtiofs", _FUSE, _virtiofs, Full.WRITEBACK, repeats=True),
)  # fmt: skip
