/* BCC sizes ring buffers in pages. */
#ifndef MKWRITE_PAGE_H
#define MKWRITE_PAGE_H
#define PAGE_SIZE 4096
#endif
