"""Fill a segment of shared memory, as workers do that hand batches of data to each other."""

from multiprocessing import shared_memory

segment = shared_memory.SharedMemory(create=True, size=100 << 20)
for at in range(0, segment.size, 4096):
    segment.buf[at] = 1
