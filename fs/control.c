/* control: how the verbs of cli and the daemons of a user talk: a Unix socket, one request and one answer
 * a connection. Here is the daemon's end.
 *
 * Not for deciding anything: requests become calls of view and publish. Not for what people read: cli
 * makes that from the answer.
 *
 * Threads: one accepts, one for each connection (a commit may take minutes, and status must answer
 * meanwhile).
 *
 *     running --control_drain--> draining --control_stop--> stopped --control_free
 *     all verbs but yield        status, yield              nobody answers, but the socket is there
 */
#define LOG_MODULE "control"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "control_internal.h"
#include "log.h"

#define PEER_TIMEOUT_S 5  /* a peer that stopped in the middle of a message */

/* -- the daemon's end -- */

struct connection {
	struct control *control;
	int fd;
	unsigned slot;
};

/* The peer's uid is ours, root's, or (we are root) whoever we came for. */
static bool peer_is(int fd, uid_t uid)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return false;
	return cred.uid == uid || cred.uid == 0;
}

bool control_is_draining(struct control *c)
{
	LOCKED(&c->lock);
	return c->draining;
}

/* The publishers of the mount may be used until control_leave(); not any more when it is unmounted. */
bool control_enter(struct control *c)
{
	LOCKED(&c->lock);
	if (c->draining)
		return false;
	c->touching++;
	return true;
}

void control_leave(struct control *c)
{
	LOCKED(&c->lock);
	c->touching--;
	cond_broadcast(&c->changed);
}

/* The peer ended, or control_stop cut its connection. */
static void wait_for_end(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN | POLLRDHUP};

	while (poll(&p, 1, -1) < 0 && errno == EINTR)
		continue;
}

static bool talk(struct control *c, int fd)
{
	struct control_request req = {0};
	struct control_answer ans = {0};
	bool stays = false;
	int r = control_recv_request(fd, &req);

	if (r == 0) {
		control_answer_to(c, &req, &ans);
		r = control_send_answer(fd, &ans);
		if (req.verb == CONTROL_BEGIN && ans.error == 0) {
			if (r == 0)
				wait_for_end(fd);
			control_hold(c, &req, ans.transaction); /* unless it has ended */
		}
		stays = (req.verb == CONTROL_UMOUNT || req.verb == CONTROL_YIELD) && ans.error == 0;
	}
	if (r < 0)
		log_debug("a request came to nothing: %s", strerror(-r));
	control_request_fini(&req);
	control_answer_fini(&ans);
	return stays;
}

static void *connection_main(void *arg)
{
	struct connection *conn = arg;
	struct control *c = conn->control;
	bool stays = talk(c, conn->fd);

	LOCKED(&c->lock);
	if (!stays)
		close(conn->fd);
	c->fds[conn->slot] = -1;
	c->active--;
	cond_broadcast(&c->changed);
	free(conn);
	return NULL;
}

static struct connection *take_slot(struct control *c, int fd)
{
	struct connection *conn = malloc(sizeof(*conn));

	if (!conn)
		return NULL;
	LOCKED(&c->lock);
	for (unsigned i = 0; i < CONTROL_CONNECTIONS_MAX; i++) {
		if (c->fds[i] >= 0)
			continue;
		c->fds[i] = fd;
		c->active++;
		*conn = (struct connection){c, fd, i};
		return conn;
	}
	free(conn);
	return NULL;
}

static void drop_slot(struct connection *conn)
{
	struct control *c = conn->control;

	LOCKED(&c->lock);
	c->fds[conn->slot] = -1;
	c->active--;
	free(conn);
}

static void accept_one(struct control *c)
{
	const struct timeval limit = {.tv_sec = PEER_TIMEOUT_S};
	struct connection *conn;
	pthread_attr_t attr;
	pthread_t thread;
	int fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		return;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	conn = peer_is(fd, geteuid()) ? take_slot(c, fd) : NULL;
	if (!conn) {
		close(fd);
		return;
	}
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	if (pthread_create(&thread, &attr, connection_main, conn) != 0) {
		drop_slot(conn);
		close(fd);
	}
	pthread_attr_destroy(&attr);
}

static void *accept_main(void *arg)
{
	struct control *c = arg;
	struct pollfd fds[] = {{.fd = c->listen_fd, .events = POLLIN}, {.fd = c->wake_fd, .events = POLLIN}};

	while (!fds[1].revents) {
		if (poll(fds, ARRAY_LEN(fds), -1) < 0)
			continue;
		if (fds[0].revents)
			accept_one(c);
	}
	return NULL;
}

/* The socket gets its name when somebody listens: one that refuses counts as dead, and is removed. */
static int listen_at(struct control *c)
{
	AUTO_FREE char *making = util_printf("%s.new", c->path);
	struct sockaddr_un addr;
	int r = making ? control_address(making, &addr) : -ENOMEM;

	if (r < 0)
		return r;
	c->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->listen_fd < 0)
		return -errno;
	if (unlink(making) < 0 && errno != ENOENT) /* of a daemon of this pid that was killed */
		return -errno;
	if (bind(c->listen_fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || chmod(making, 0600) < 0 ||
	    listen(c->listen_fd, CONTROL_CONNECTIONS_MAX) < 0 || rename(making, c->path) < 0)
		return -errno;
	return 0;
}

static int start(struct control *c)
{
	AUTO_FREE char *dir = NULL;
	int r = control_make_folder(&dir);

	if (r < 0)
		return r;
	c->path = util_printf("%s/%016llx-%d.sock", dir, control_name_hash(c->env.mountpoint), (int)getpid());
	if (!c->path)
		return -ENOMEM;
	r = listen_at(c);
	if (r < 0) {
		log_err("the control socket %s cannot be made: %s", c->path, strerror(-r));
		return r;
	}
	c->wake_fd = eventfd(0, EFD_CLOEXEC);
	if (c->wake_fd < 0)
		return -errno;
	r = pthread_create(&c->thread, NULL, accept_main, c);
	return -r;
}

static void destroy(struct control *c)
{
	if (c->listen_fd >= 0) {
		unlink(c->path);
		close(c->listen_fd);
	}
	if (c->wake_fd >= 0)
		close(c->wake_fd);
	cond_fini(&c->changed);
	lock_fini(&c->lock);
	free(c->path);
	free(c);
}

int control_new(const struct control_env *env, struct control **ret)
{
	struct control *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return -ENOMEM;
	c->env = *env;
	c->listen_fd = c->wake_fd = -1;
	for (size_t i = 0; i < CONTROL_CONNECTIONS_MAX; i++)
		c->fds[i] = -1;
	lock_init(&c->lock, LOCK_CONTROL);
	cond_init(&c->changed);
	r = start(c);
	if (r < 0) {
		destroy(c);
		return r;
	}
	*ret = c;
	return 0;
}

void control_drain(struct control *c)
{
	LOCKED(&c->lock);
	c->draining = true;
	cond_broadcast(&c->changed);
	while (c->touching > 0)
		cond_wait(&c->changed, &c->lock);
}

bool control_unmounted(struct control *c)
{
	LOCKED(&c->lock);
	return c->unmounted;
}

void control_stop(struct control *c)
{
	uint64_t one = 1;

	if (util_write_all(c->wake_fd, &one, sizeof(one)) < 0)
		log_err("the control thread cannot be woken");
	pthread_join(c->thread, NULL);
	LOCKED(&c->lock);
	for (size_t i = 0; i < CONTROL_CONNECTIONS_MAX; i++) {
		if (c->fds[i] >= 0)
			shutdown(c->fds[i], SHUT_RD);
	}
	while (c->active > 0)
		cond_wait(&c->changed, &c->lock);
}

void control_unlink(struct control *c)
{
	unlink(c->path);
}

void control_free(struct control *c)
{
	if (c)
		destroy(c);
}
