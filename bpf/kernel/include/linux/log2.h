/* BCC includes this name; nothing of it is needed. */
