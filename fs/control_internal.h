/* What the two files of the control socket share: control.c (the daemon's end), control_wire.c (what is
 * said, the client's end). */
#ifndef HUGFS_CONTROL_INTERNAL_H
#define HUGFS_CONTROL_INTERNAL_H

#include <sys/un.h>

#include "control.h"
#include "lock.h"

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

/* -- the daemon's end -- */

#define CONTROL_CONNECTIONS_MAX 32

struct control {
	struct control_env env;
	char *path;
	int listen_fd;
	int wake_fd;
	pthread_t thread;
	struct lock lock;
	struct cond changed;
	/* -- guarded by lock -- */
	unsigned active;   /* connections */
	unsigned touching; /* of these, how many use publishers now, those that wait for a commit apart */
	bool draining;
	bool unmounted; /* by us, after publishing */
	int fds[CONTROL_CONNECTIONS_MAX]; /* of the active ones; -1: free */
};

bool control_is_draining(struct control *c);
/* The publishers of the mount may be used until control_leave; not any more when it is unmounted. */
bool control_enter(struct control *c);
void control_leave(struct control *c);

/* control_verbs.c: what a request asks for is done, and told in *ans. */
void control_answer_to(struct control *c, const struct control_request *req, struct control_answer *ans);
/* Whoever asked for the transaction of that request is gone. */
void control_hold(struct control *c, const struct control_request *req, uint64_t transaction);

/* What a request is about: one revision and a path in it, or all revisions at and below a folder above
 * them. */
struct control_scope {
	struct rev *rev; /* NULL: several */
	char *path;      /* below rev; else what the folder is called from hf://, as "user/repo@/refs" */
};

struct control_work {
	struct control *control;
	const struct control_request *req;
	struct control_answer *ans;
	const struct control_scope *scope;
	int64_t deadline_ms; /* UMOUNT; 0: none */
};

/* In an answer: `err` (-errno) and the sentence; 0, so that the answer is sent. */
int control_fail(struct control_answer *ans, int err, const char *text);
bool control_in_scope(const struct control_scope *scope, struct rev *rev);
/* top: the path below it whose changes are told. */
int control_describe(struct control *c, struct rev *rev, const char *top, struct control_rev *ret) MUST_USE;

/* control_look.c: the verbs that look at the Hub. Those for view_each_rev have the work as their argument. */
int control_diff(void *work, struct rev *rev);
int control_refresh(void *work, struct rev *rev);
int control_log(struct control_work *w) MUST_USE;
int control_tag(struct control_work *w) MUST_USE;

#endif
