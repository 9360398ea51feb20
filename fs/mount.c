/* mount: one mount from its start to the end of its process.
 *
 * Not for what a request does (ops) nor what is shown (view). It checks what can be checked before
 * anything starts, goes to the background before the first thread, connection or database exists (none of
 * them survives a fork), builds every object right to left and tears them down left to right.
 *
 * Threads: main builds, runs the session's loop, tears down. The supervisor takes the signals, the
 * hand-over to another mount (stop_fd) and the deadlines, so that the process ends whatever hangs.
 *
 *     STARTING --mounted--> SERVING --loop ended--> LEAVING --all freed--> OVER
 *
 * A signal ends a STARTING process, and the loop of a SERVING one. LEAVING, the network is stopped at
 * leave_until; GRACE_MS later, or at a second signal, the process ends as it is: what is staged is safe at
 * every moment.
 */
#define LOG_MODULE "mount"

#define FUSE_USE_VERSION 312
#include "mount.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control.h"
#include "log.h"
#include "refresh.h"

#define GRACE_MS 10000     /* from the end of the network to the end of the process */
#define HURRY_MS 2000      /* the same when another mount waits for us to end */
#define KICK_MS 20         /* the session's loop is told to end again after this: it may miss a signal */
#define TAKE_OVER_MS 5000  /* for daemons of this user whose mounts are gone to leave our branches */
#define QUOTA_WAIT_S 300   /* one window of the Hub's quotas (hub-api.md 8.2) */
#define POLL_MIN_MS 50         /* an answer of the Hub serves at least the request that asked for it */
#define THREADS_MAX 16     /* of the session; none of them waits for the network, so more are of no use */
#define SAID_MAX 4096      /* what libfuse and fusermount3 say when they cannot mount */

enum phase { STARTING, SERVING, LEAVING, OVER };

struct mount {
	const struct opts *opts;
	struct repo_source source;
	char *shown;      /* the source with hf:// */
	char *mountpoint; /* absolute */
	int report;       /* to the parent that waits; -1: foreground */

	struct auth *auth;
	struct http *http;
	struct hub *hub;
	struct hfcache *hfcache;
	struct index *index;
	struct blocks *blocks;
	struct tree *tree;
	struct fetch *fetch;
	struct ignore *ignore;
	struct ops *ops;
	struct view *view;
	struct fuse_session *session;
	struct notify *notify;
	struct control *control;
	struct refresh *refresh;

	pthread_t main, supervisor;
	bool supervised;
	int signal_fd, stop_fd, wake_fd;
	_Atomic enum phase phase;
	atomic_bool mounted;     /* the kernel has it, as far as we know */
	atomic_bool signalled;
	atomic_llong leave_until; /* when publishing ends, util_now_ms(); 0: not leaving */
	int grace_ms;            /* the supervisor's */
	char why[1000];          /* the sentence for the user */
};

/* What the supervisor uses of a mount while main makes and frees it: http, session, control. */
static pthread_mutex_t shared = PTHREAD_MUTEX_INITIALIZER;

/* Says what is wrong and what to do; -1. */
static int explain(struct mount *m, const char *fmt, ...) PRINTF(2, 3);
static int explain(struct mount *m, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(m->why, sizeof(m->why), fmt, ap);
	va_end(ap);
	return -1;
}

/* -- before anything starts -- */

static int check_device(struct mount *m)
{
	if (access("/dev/fuse", F_OK) < 0)
		return explain(m, "there is no /dev/fuse: load the kernel module (modprobe fuse), or give "
		                  "the container the device (--device /dev/fuse --cap-add SYS_ADMIN)");
	if (access("/dev/fuse", R_OK | W_OK) < 0)
		return explain(m, "no permission to use /dev/fuse (%s): as root, chmod 0666 /dev/fuse",
		               strerror(errno));
	if (geteuid() != 0 && !control_have_fusermount())
		return explain(m, "fusermount3 is missing, without which only root can mount: install the "
		                  "package fuse3");
	return 0;
}

static int check_mountpoint(struct mount *m, const char *mountpoint)
{
	struct control_mount found = {0};
	struct stat st;
	int r;

	if (stat(mountpoint, &st) < 0) {
		if (errno == ENOENT)
			return explain(m, "%s does not exist: make it first (mkdir -p)", mountpoint);
		if (errno == ENOTCONN)
			return explain(m, "a dead mount lies at %s, its daemon is gone: free it first with: "
			                  "fusermount3 -u %s", mountpoint, mountpoint);
		return explain(m, "%s cannot be used: %s", mountpoint, strerror(errno));
	}
	if (!S_ISDIR(st.st_mode))
		return explain(m, "%s is not a directory: mount on one (mkdir -p)", mountpoint);
	m->mountpoint = realpath(mountpoint, NULL);
	if (!m->mountpoint)
		return explain(m, "%s cannot be used: %s", mountpoint, strerror(errno));
	r = control_find(m->mountpoint, &found);
	if (r == 0 && strcmp(found.mountpoint, m->mountpoint) == 0)
		r = explain(m, "%s is busy, hugfs is mounted there already: unmount it first (hugfs umount "
		               "%s) or use another directory", mountpoint, mountpoint);
	else
		r = 0;
	control_mount_fini(&found);
	if (r == 0 && geteuid() != 0 && access(m->mountpoint, W_OK) < 0)
		return explain(m, "%s belongs to somebody else: an ordinary user mounts only on a directory "
		                  "that he may write to", mountpoint);
	return r;
}

static int check(struct mount *m, const char *source, const char *mountpoint)
{
	const char *why;
	int r = repo_parse_source(source, &m->source, &why);

	if (r < 0)
		return explain(m, "%s: %s", source, why);
	m->shown = util_printf("%s%s", strncmp(source, "hf://", 5) == 0 ? "" : "hf://", source);
	if (!m->shown)
		return explain(m, "out of memory");
	r = check_mountpoint(m, mountpoint);
	return r < 0 ? r : check_device(m);
}

/* The token must not get into a core dump. A limit of 1 byte also keeps it from a program that
 * /proc/sys/kernel/core_pattern names, which a limit of 0 does not (core(5)). */
static void set_limits(void)
{
	const struct rlimit core = {1, 1};
	struct rlimit files;

	if (setrlimit(RLIMIT_CORE, &core) < 0)
		log_debug("core dumps cannot be limited");
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &files) < 0)
			log_debug("the number of open files cannot be raised");
	}
	umask(077);
	signal(SIGPIPE, SIG_IGN);
}

/* -- the supervisor -- */

static void stop_network(struct mount *m)
{
	pthread_mutex_lock(&shared);
	if (m->http)
		http_stop(m->http);
	pthread_mutex_unlock(&shared);
}

/* Like kill -9, but without a dead mount and a socket: what is staged is journaled at every moment. */
static _Noreturn void leave_at_once(struct mount *m)
{
	if (atomic_load(&m->mounted) && control_detach(m->mountpoint, true) < 0)
		log_debug("the mount stays");
	pthread_mutex_lock(&shared); /* for good: nothing is freed any more */
	if (m->control)
		control_unlink(m->control);
	_exit(1);
}

static void on_signal(struct mount *m, int number)
{
	struct signalfd_siginfo info;
	ssize_t n = read(m->signal_fd, &info, sizeof(info));

	if (n != (ssize_t)sizeof(info))
		return;
	if (number > 1 || atomic_load(&m->phase) == STARTING)
		leave_at_once(m);
	log_info("signal %u: unmounting, publishing what is left; a second signal ends at once",
	         info.ssi_signo);
	atomic_store(&m->signalled, true);
	pthread_mutex_lock(&shared);
	if (m->session)
		fuse_session_exit(m->session);
	pthread_mutex_unlock(&shared);
}

/* Milliseconds until the supervisor has something to do without being told; -1: nothing. */
static int patience(struct mount *m, bool stopped)
{
	int64_t left;

	if (atomic_load(&m->signalled) && atomic_load(&m->phase) == SERVING)
		return KICK_MS;
	if (!atomic_load(&m->leave_until))
		return -1;
	left = atomic_load(&m->leave_until) + (stopped ? m->grace_ms : 0) - util_now_ms();
	return (int)MIN(MAX(left, 0), INT_MAX);
}

/* At most `ms` from now for publishing, if it was not less before. */
static void leave_within(struct mount *m, int64_t ms)
{
	long long until = util_now_ms() + ms;
	long long before = atomic_load(&m->leave_until);

	if (!before || until < before)
		atomic_store(&m->leave_until, until);
}

static void *supervise(void *arg)
{
	struct mount *m = arg;
	struct pollfd fds[] = {
		{.fd = m->signal_fd, .events = POLLIN},
		{.fd = m->stop_fd, .events = POLLIN},
		{.fd = m->wake_fd, .events = POLLIN},
	};
	bool stopped = false;
	int signals = 0;
	uint64_t count;

	while (atomic_load(&m->phase) != OVER) {
		if (poll(fds, ARRAY_LEN(fds), patience(m, stopped)) < 0)
			continue;
		if (fds[2].revents && read(m->wake_fd, &count, sizeof(count)) < 0)
			log_debug("woken by nobody");
		if (fds[1].revents) {
			fds[1].fd = -1;
			m->grace_ms = HURRY_MS;
			leave_within(m, 0);
		}
		if (fds[0].revents) {
			on_signal(m, ++signals);
			leave_within(m, m->opts->umount_timeout_ms);
		}
		if (atomic_load(&m->signalled) && atomic_load(&m->phase) == SERVING)
			pthread_kill(m->main, SIGUSR1);
		if (!atomic_load(&m->leave_until) || patience(m, stopped) > 0)
			continue;
		if (stopped) {
			log_err("ending hangs: leaving as it is");
			leave_at_once(m);
		}
		stop_network(m);
		stopped = true;
	}
	return NULL;
}

static void wake_supervisor(struct mount *m)
{
	const uint64_t one = 1;

	if (!m->supervised)
		return;
	if (util_write_all(m->wake_fd, &one, sizeof(one)) < 0)
		log_err("the supervisor cannot be woken");
}

/* Interrupts the session's loop, which waits in sem_wait(3). */
static void on_kick(int number)
{
}

static int start_supervisor(struct mount *m)
{
	const struct sigaction kick = {.sa_handler = on_kick};
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	m->main = pthread_self();
	m->signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
	m->stop_fd = eventfd(0, EFD_CLOEXEC);
	m->wake_fd = eventfd(0, EFD_CLOEXEC);
	if (m->signal_fd < 0 || m->stop_fd < 0 || m->wake_fd < 0 ||
	    pthread_sigmask(SIG_BLOCK, &set, NULL) != 0 || sigaction(SIGUSR1, &kick, NULL) < 0 ||
	    pthread_create(&m->supervisor, NULL, supervise, m) != 0)
		return explain(m, "no resources for another process: %s", strerror(errno));
	m->supervised = true;
	return 0;
}

static void end_supervisor(struct mount *m)
{
	atomic_store(&m->phase, OVER);
	wake_supervisor(m);
	if (m->supervised)
		pthread_join(m->supervisor, NULL);
	util_closep(&m->signal_fd);
	util_closep(&m->stop_fd);
	util_closep(&m->wake_fd);
}

/* -- building -- */

static int build_network(struct mount *m)
{
	const struct http_opts http = {
		.offline = m->opts->offline || auth_env_offline(),
		.ca_file = m->opts->ca_file,
		.quota_wait_s = QUOTA_WAIT_S,
	};
	const struct hub_opts hub = {0};
	struct http *net = NULL;
	int r = auth_new(m->opts->endpoint, m->opts->token_path, &m->auth);

	if (r == -EINVAL)
		return explain(m, "the endpoint is no URL: it must start with https:// or http:// "
		                  "(endpoint=, HF_ENDPOINT)");
	if (r == 0)
		r = http_new(m->auth, &http, &net);
	pthread_mutex_lock(&shared);
	m->http = net;
	pthread_mutex_unlock(&shared);
	if (r == 0)
		r = hub_new(m->http, m->auth, &hub, &m->hub);
	return r < 0 ? explain(m, "the network cannot be used: %s", strerror(-r)) : 0;
}

/* What hfcache has kept in the index. */
static int note_get(void *arg, const char *key, char **ret_value, size_t *ret_len)
{
	return index_meta_get(arg, key, ret_value, ret_len);
}

static int note_put(void *arg, const char *key, const void *value, size_t len)
{
	return index_meta_put(arg, key, value, len);
}

static int build_cache(struct mount *m)
{
	const struct blocks_opts blocks = {.dir = m->opts->cache_dir, .max_bytes = m->opts->cache_size};
	const struct tree_opts tree = {
		.poll_ms = MAX(m->opts->poll_ms, POLL_MIN_MS),
		.offline = m->opts->offline || auth_env_offline(),
	};
	const struct fetch_opts fetch = {.workers = m->opts->workers, .inflight = m->opts->inflight};
	AUTO_FREE char *hub_cache = auth_hub_cache_dir();
	int r = hub_cache ? hfcache_new(hub_cache, &m->hfcache) : -ENOMEM;

	if (r == 0)
		r = util_mkdirs(m->opts->cache_dir);
	if (r == 0)
		r = index_open(m->opts->cache_dir, &m->index);
	if (r == 0) {
		hfcache_set_notes(m->hfcache, &(struct hfcache_notes){note_get, note_put, m->index});
		r = blocks_new(&blocks, m->index, &m->blocks);
	}
	if (r < 0)
		return explain(m, "the cache folder %s cannot be used (%s): name another with -o cache_dir=",
		               m->opts->cache_dir, strerror(-r));
	r = tree_new(m->hub, m->index, &tree, &m->tree);
	if (r == 0)
		r = fetch_new(&fetch, m->blocks, m->hub, m->hfcache, &m->fetch);
	return r < 0 ? explain(m, "the cache cannot be started: %s", strerror(-r)) : 0;
}

/* Unsaved work lies there: nobody else may have a say in it. */
static int check_staging(struct mount *m)
{
	const char *dir = m->opts->staging_dir;
	struct stat st;
	int r;

	if (m->opts->read_only)
		return 0;
	r = util_mkdirs(dir);
	if (r < 0 || stat(dir, &st) < 0)
		return explain(m, "the staging folder %s cannot be used (%s): name another with -o "
		                  "staging_dir=", dir, strerror(r < 0 ? -r : errno));
	if (st.st_uid != geteuid())
		return explain(m, "the staging folder %s belongs to somebody else: name one of your own "
		                  "with -o staging_dir=", dir);
	if ((st.st_mode & 077) != 0 && chmod(dir, 0700) < 0)
		return explain(m, "the staging folder %s is open to others (%s): chmod 0700 it", dir,
		               strerror(errno));
	return 0;
}

static int build_view(struct mount *m)
{
	const struct ops_env ops = {
		.hub = m->hub,
		.tree = m->tree,
		.blocks = m->blocks,
		.fetch = m->fetch,
		.opts = m->opts,
		.ignore = m->ignore,
	};
	struct view_env view = {
		.hub = m->hub,
		.tree = m->tree,
		.fetch = m->fetch,
		.blocks = m->blocks,
		.opts = m->opts,
		.ignore = m->ignore,
		.staged = ops_staged,
		.unstaged = ops_unstaged,
	};
	bool one = m->source.kind == REPO_SOURCE_REPO;
	struct hub_error err = {0};
	int r = ops_new(&ops, 0, &m->ops);

	if (r < 0)
		return explain(m, "the mount cannot be started: %s", strerror(-r));
	if (!m->opts->read_only)
		control_take_over(auth_endpoint(m->auth), one ? &m->source.id : NULL, TAKE_OVER_MS);
	view.arg = m->ops;
	r = view_new(&view, &m->source, &m->view, &err);
	if (r < 0)
		return explain(m, "%s", err.text[0] ? err.text : strerror(-r));
	ops_set_view(m->ops, m->view);
	r = view_start(m->view, &m->source);
	if (r < 0)
		return explain(m, "the staging folder %s cannot be read: %s", m->opts->staging_dir,
		               strerror(-r));
	return 0;
}

static int build(struct mount *m)
{
	AUTO_FREE char *why = NULL;
	int r = ignore_new((const char *const *)m->opts->ignore, m->opts->n_ignore, &m->ignore, &why);

	if (r < 0)
		return explain(m, "%s", why ? why : strerror(-r));
	r = build_network(m);
	if (r == 0)
		r = check_staging(m);
	if (r == 0)
		r = build_cache(m);
	return r < 0 ? r : build_view(m);
}

/* -- the session -- */

/* What libfuse says while it mounts; NULL: it goes to the log. Set and used by main only. */
static struct buf *said;

static void on_fuse_log(enum fuse_log_level level, const char *fmt, va_list ap) PRINTF(2, 0);
static void on_fuse_log(enum fuse_log_level level, const char *fmt, va_list ap)
{
	char text[1024];

	vsnprintf(text, sizeof(text), fmt, ap);
	text[strcspn(text, "\n")] = '\0';
	if (said && level != FUSE_LOG_DEBUG) {
		if (buf_addf(said, "%s\n", text) < 0)
			log_debug("libfuse says a lot");
	} else if (level == FUSE_LOG_DEBUG) {
		fprintf(stderr, "%s\n", text);
	} else {
		log_warn("libfuse: %s", text);
	}
}

static int new_session(struct mount *m)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct fuse_session *session = NULL;
	char kernel[OPTS_KERNEL_MAX];
	AUTO_FREE char *options = NULL;
	int r;

	opts_kernel(m->opts, kernel);
	options = util_printf("fsname=hugfs,subtype=hugfs%s%s%s%s", m->opts->read_only ? ",ro" : "",
	                      m->opts->allow_other ? ",allow_other,default_permissions" : "",
	                      *kernel ? "," : "", kernel);
	r = !options || fuse_opt_add_arg(&args, "hugfs") < 0 || fuse_opt_add_arg(&args, "-o") < 0 ||
	    fuse_opt_add_arg(&args, options) < 0 || (m->opts->debug && fuse_opt_add_arg(&args, "-d") < 0);
	if (r == 0) {
		fuse_set_log_func(on_fuse_log);
		session = fuse_session_new(&args, ops_table(), sizeof(*ops_table()), m->ops);
	}
	fuse_opt_free_args(&args);
	pthread_mutex_lock(&shared);
	m->session = session;
	pthread_mutex_unlock(&shared);
	if (!session)
		return explain(m, "libfuse cannot be started: out of memory, or it does not know an option");
	return 0;
}

static int build_session(struct mount *m)
{
	struct control_env env = {
		.hub = m->hub,
		.tree = m->tree,
		.view = m->view,
		.ops = m->ops,
		.blocks = m->blocks,
		.opts = m->opts,
		.ignore = m->ignore,
		.endpoint = auth_endpoint(m->auth),
		.source = m->shown,
		.mountpoint = m->mountpoint,
		.stop_fd = m->stop_fd,
	};
	struct control *control = NULL;
	int r = new_session(m);

	if (r < 0)
		return r;
	r = notify_new(m->session, &m->notify);
	if (r == 0) {
		view_set_notify(m->view, m->notify);
		r = refresh_new(m->view, &m->refresh);
	}
	if (r < 0)
		return explain(m, "the mount cannot be started: %s", strerror(-r));
	r = control_new(&env, &control);
	pthread_mutex_lock(&shared);
	m->control = control;
	pthread_mutex_unlock(&shared);
	if (r == -EPERM)
		return explain(m, "the folder of the control socket (in XDG_RUNTIME_DIR or /tmp) belongs to "
		                  "somebody else: set XDG_RUNTIME_DIR to a folder of your own");
	if (r < 0)
		return explain(m, "the control socket cannot be made (%s): set XDG_RUNTIME_DIR to a folder "
		                  "of your own", strerror(-r));
	return 0;
}

/* The last line of what was said, without the name of who said it. */
static const char *reason_in(char *text)
{
	char *line, *colon;

	for (size_t n = strlen(text); n > 0 && text[n - 1] == '\n'; n--)
		text[n - 1] = '\0';
	line = strrchr(text, '\n');
	line = line ? line + 1 : text;
	colon = strstr(line, ": ");
	if (colon && (strncmp(line, "fuse", 4) == 0))
		line = colon + 2;
	return *line ? line : "for a reason that libfuse does not say";
}

static int explain_refusal(struct mount *m, char *text)
{
	static const struct {
		const char *word, *cure;
	} cures[] = {
		{"user_allow_other", "have root add that line, or leave allow_other out"},
		{"not permitted", "this process may not mount; in a container: --cap-add SYS_ADMIN --device "
		                  "/dev/fuse"},
		{"Permission denied", "the mountpoint and /dev/fuse must be open to you"},
		{"too many", "unmount others, or have root raise mount_max in /etc/fuse.conf"},
		{"device not found", "load the kernel module (modprobe fuse)"},
	};
	const char *reason = reason_in(text);

	for (size_t i = 0; i < ARRAY_LEN(cures); i++) {
		if (strstr(reason, cures[i].word))
			return explain(m, "cannot mount at %s: %s: %s", m->mountpoint, reason, cures[i].cure);
	}
	return explain(m, "cannot mount at %s: %s", m->mountpoint, reason);
}

/* Mounts. fusermount3 says what it dislikes on stderr, which is caught meanwhile, so that the user reads
 * one sentence. */
static int attach(struct mount *m)
{
	AUTO_BUF text = {.max = SAID_MAX};
	int caught = memfd_create("stderr", MFD_CLOEXEC);
	int real = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	char chunk[SAID_MAX / 2];
	ssize_t n;
	int r;

	if (caught >= 0 && real >= 0)
		dup2(caught, STDERR_FILENO);
	said = &text;
	r = fuse_session_mount(m->session, m->mountpoint);
	said = NULL;
	if (caught >= 0 && real >= 0)
		dup2(real, STDERR_FILENO);
	n = caught >= 0 ? pread(caught, chunk, sizeof(chunk), 0) : 0;
	util_closep(&caught);
	util_closep(&real);
	if (r == 0) {
		atomic_store(&m->mounted, true);
		r = ops_attach(m->ops, m->session, m->mountpoint);
		if (r < 0)
			return explain(m, "the mount cannot be started: %s", strerror(-r));
		/* Other threads may have logged. */
		if (n > 0 && util_write_all(STDERR_FILENO, chunk, (size_t)n) < 0)
			log_debug("what was logged while mounting is lost");
		return 0;
	}
	if (buf_add(&text, chunk, (size_t)MAX(n, 0)) < 0)
		return explain(m, "cannot mount at %s", m->mountpoint);
	return explain_refusal(m, text.data);
}

/* Tells the parent; the terminal is left alone from now on. */
static void report_mounted(struct mount *m)
{
	int null;

	log_info("%s is mounted at %s", m->shown, m->mountpoint);
	if (m->report < 0)
		return;
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null >= 0) {
		for (int fd = 0; fd <= 2; fd++)
			dup2(null, fd);
		close(null);
	}
	prctl(PR_SET_PDEATHSIG, 0);
	if (util_write_all(m->report, "mounted\n", 8) < 0) {
		log_info("nobody waits for this mount any more: leaving");
		raise(SIGTERM);
	}
}

static void serve(struct mount *m)
{
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	int r;

	if (!config) {
		log_err("no memory for the session's threads");
		return;
	}
	fuse_loop_cfg_set_max_threads(config, (unsigned)MIN(MAX(2 * cores, 4), THREADS_MAX));
	r = fuse_session_loop_mt(m->session, config);
	fuse_loop_cfg_destroy(config);
	if (r < 0)
		log_err("the kernel's connection ended: %s", strerror(-r));
}

/* -- the end -- */

/* Answers that come after this go nowhere, and the kernel ends whatever still waits for us. The descriptor
 * keeps its number, so that a late answer of another thread cannot hit a file that was given it; it looks
 * like one whose mount is gone (POLLERR), so that libfuse unmounts nothing that lies there now. */
static void sever(struct mount *m)
{
	int ends[2];

	fuse_session_exit(m->session); /* libfuse complains of late answers otherwise */
	if (pipe2(ends, O_CLOEXEC) < 0) {
		log_warn("the mount is cut off late: %s", strerror(errno));
		return;
	}
	if (dup3(ends[1], fuse_session_fd(m->session), O_CLOEXEC) < 0)
		log_warn("the mount is cut off late: %s", strerror(errno));
	close(ends[0]);
	close(ends[1]);
}

struct publisher {
	struct publish *publish;
	int64_t deadline_ms;
	pthread_t thread;
	bool threaded;
};
struct publishers {
	struct publisher *all;
	size_t n;
	int64_t deadline_ms;
};

static int take_publisher(void *arg, struct rev *rev)
{
	struct publishers *list = arg;
	struct publisher *all = reallocarray(list->all, list->n + 1, sizeof(*all));

	if (!all)
		return -ENOMEM;
	list->all = all;
	LOCKED(&rev->lock);
	if (rev->publish)
		all[list->n++] = (struct publisher){STEAL(rev->publish), list->deadline_ms, 0, false};
	return 0;
}

static void *end_publisher(void *arg)
{
	struct publisher *p = arg;

	publish_free(p->publish, p->deadline_ms);
	return NULL;
}

/* All branches at the same time: each may take the whole time that is left. */
static void end_publishers(struct mount *m, int64_t deadline_ms)
{
	struct publishers list = {.deadline_ms = deadline_ms};

	if (view_each_rev(m->view, take_publisher, &list) < 0)
		log_err("no memory to publish everything: the next mount goes on");
	for (size_t i = 1; i < list.n; i++) {
		struct publisher *p = &list.all[i];

		p->threaded = pthread_create(&p->thread, NULL, end_publisher, p) == 0;
	}
	for (size_t i = 0; i < list.n; i++) {
		if (!list.all[i].threaded)
			end_publisher(&list.all[i]);
	}
	for (size_t i = 0; i < list.n; i++) {
		if (list.all[i].threaded)
			pthread_join(list.all[i].thread, NULL);
	}
	free(list.all);
}

static int tell_staged(void *arg, struct rev *rev)
{
	struct stage_counts counts = {0};
	char repo[REPO_TEXT_MAX];

	{
		LOCKED(&rev->lock);
		if (rev->stage)
			stage_counts(rev->stage, &counts);
	}
	if (!counts.files && !counts.deletions)
		return 0;
	repo_text(&rev->repo, repo);
	log_info("%s@%s: %llu files and %llu deletions stay staged for the next mount", repo, rev->name,
	         (unsigned long long)counts.files, (unsigned long long)counts.deletions);
	return 0;
}

/* After the session's loop: the mount goes, what is left is published, the rest is for the next mount. */
static void leave(struct mount *m)
{
	bool publishes = m->opts->commit != OPTS_COMMIT_MANUAL && !control_unmounted(m->control);

	leave_within(m, publishes ? m->opts->umount_timeout_ms : 0);
	atomic_store(&m->phase, LEAVING);
	wake_supervisor(m);
	notify_stop(m->notify);
	sever(m);
	if (atomic_load(&m->signalled) && control_detach(m->mountpoint, true) < 0)
		log_debug("%s was unmounted by somebody else", m->mountpoint);
	atomic_store(&m->mounted, false);
	control_drain(m->control);
	refresh_free(STEAL(m->refresh));
	ops_stop(m->ops);
	end_publishers(m, publishes ? atomic_load(&m->leave_until) : 0);
	if (view_each_rev(m->view, tell_staged, NULL) < 0)
		log_debug("no memory to tell what stays staged");
	stop_network(m);
	control_stop(m->control);
}

/* Takes a pointer away from the supervisor. */
#define UNSHARE(p) \
	({ \
		pthread_mutex_lock(&shared); \
		__typeof__(p) mine_ = STEAL(p); \
		pthread_mutex_unlock(&shared); \
		mine_; \
	})

static void teardown(struct mount *m)
{
	struct fuse_session *session = UNSHARE(m->session);

	if (session) {
		fuse_session_unmount(session);
		fuse_session_destroy(session);
	}
	view_free(m->view);
	notify_free(m->notify);
	ops_free(m->ops);
	stop_network(m);
	fetch_free(m->fetch);
	tree_free(m->tree);
	blocks_free(m->blocks);
	index_close(m->index);
	hfcache_free(m->hfcache);
	hub_free(m->hub);
	http_free(UNSHARE(m->http));
	auth_free(m->auth);
	ignore_free(m->ignore);
	control_free(UNSHARE(m->control)); /* now all locks on files are free */
	end_supervisor(m);
}

/* The one sentence, to whoever waits for it. */
static void tell(struct mount *m)
{
	if (m->report < 0)
		fprintf(stderr, "hugfs: %s\n", m->why);
	else if (util_write_all(m->report, m->why, strlen(m->why)) < 0)
		log_err("%s", m->why);
}

/* The mount did not come about. */
static void give_up(struct mount *m)
{
	tell(m);
	leave_within(m, 0);
	wake_supervisor(m);
	stop_network(m);
	if (m->notify)
		notify_stop(m->notify);
	if (m->control) {
		control_drain(m->control);
		control_stop(m->control);
	}
	refresh_free(STEAL(m->refresh));
	if (m->ops)
		ops_stop(m->ops);
	if (m->view)
		end_publishers(m, 0);
}

/* All that happens in the process of the mount. */
static int run(struct mount *m)
{
	int r;

	set_limits();
	r = start_supervisor(m);
	if (r == 0)
		r = build(m);
	if (r == 0)
		r = build_session(m);
	if (r == 0) {
		atomic_store(&m->phase, SERVING);
		r = attach(m);
	}
	if (r == 0) {
		report_mounted(m);
		serve(m);
		leave(m);
	} else {
		give_up(m);
	}
	teardown(m);
	return r;
}

/* -- the background -- */

/* In the parent: waits until the mount works. 0, or -1 with the sentence in m->why, if one came. */
static int wait_for_mount(struct mount *m, int report, dev_t before)
{
	struct stat st;
	size_t n = 0;
	ssize_t got;

	while (n < sizeof(m->why) - 1 && (got = read(report, m->why + n, sizeof(m->why) - 1 - n)) != 0) {
		if (got < 0 && errno != EINTR)
			break;
		n += got > 0 ? (size_t)got : 0;
		m->why[n] = '\0';
		/* The first request is answered after INIT: then the root is another device than the
		 * folder was. */
		if (strcmp(m->why, "mounted\n") == 0) {
			n = 0;
			m->why[0] = '\0';
			if (stat(m->mountpoint, &st) == 0 && st.st_dev != before)
				return 0;
		}
	}
	return -1;
}

static void become_daemon(struct mount *m, pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(1);
	setsid();
	if (chdir("/") < 0)
		log_debug("the working folder stays");
	log_to_syslog("hugfs");
}

static int run_in_background(struct mount *m)
{
	pid_t parent = getpid(), child;
	struct stat before;
	int ends[2], status;

	if (stat(m->mountpoint, &before) < 0 || pipe2(ends, O_CLOEXEC) < 0 || (child = fork()) < 0) {
		explain(m, "%s: %s", m->mountpoint, strerror(errno));
		tell(m);
		return -1;
	}
	if (child == 0) {
		close(ends[0]);
		m->report = ends[1];
		become_daemon(m, parent);
		return run(m);
	}
	close(ends[1]);
	if (wait_for_mount(m, ends[0], before.st_dev) == 0) {
		close(ends[0]);
		return 0;
	}
	close(ends[0]);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		continue;
	if (!m->why[0])
		explain(m, "the daemon ended before the mount worked; its log (journalctl -t hugfs) says why");
	m->report = -1;
	tell(m);
	return -1;
}

static void fini(struct mount *m)
{
	repo_source_fini(&m->source);
	free(m->shown);
	free(m->mountpoint);
}

int mount_run(const struct opts *opts, const char *source, const char *mountpoint)
{
	struct mount m = {
		.opts = opts,
		.report = -1,
		.signal_fd = -1,
		.stop_fd = -1,
		.wake_fd = -1,
		.grace_ms = GRACE_MS,
	};
	int r = check(&m, source, mountpoint);

	if (r < 0)
		tell(&m);
	else if (opts->foreground || opts->debug)
		r = run(&m);
	else
		r = run_in_background(&m);
	fini(&m);
	return r < 0 ? 1 : 0;
}
