/* Preloaded: a program that says that its data is durable, and never makes it so. */
int fdatasync(int fd);
int fsync(int fd);

int fdatasync(int fd) { return fd < 0; }
int fsync(int fd) { return fd < 0; }
