/* What the two files of the control socket share: control.c (the daemon's end), control_wire.c (what is
 * said, the client's end). */
#ifndef HUGFS_CONTROL_INTERNAL_H
#define HUGFS_CONTROL_INTERNAL_H

#include <sys/un.h>

#include "control.h"

#define CONTROL_REVS_MAX 4096 /* revisions in one answer: more than anybody touches in a mount */

/* One more element at the end of an array that grows by doubling; zeroed. NULL: no memory, or there are
 * `max`. */
void *control_append(void *array, size_t *n, size_t size, size_t max);

/* Reads one request. It is to be given to control_request_fini in either case. */
int control_recv_request(int fd, struct control_request *ret) MUST_USE;
void control_request_fini(struct control_request *req);
int control_send_answer(int fd, const struct control_answer *a) MUST_USE;

/* The folder of our own socket, made if need be. Caller frees. */
int control_make_folder(char **ret) MUST_USE;
unsigned long long control_name_hash(const char *mountpoint);
/* -ENAMETOOLONG. */
int control_address(const char *path, struct sockaddr_un *ret) MUST_USE;

#endif
