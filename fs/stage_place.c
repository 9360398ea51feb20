/* stage_place: where a stage lies on disk, and who owns it. Not for what is in its journal or data files.
 *
 * Any thread; no state but the struct.
 *
 * The lock is that of an open file description on DIR/lock, so the kernel drops it on kill -9. The owner of
 * an empty stage removes the folder while it holds the lock; one that waited there meanwhile holds a lock
 * on a file that has no name, sees that, and begins again. One that finds its folder gone below its feet
 * begins again too. */
#define LOG_MODULE "stage_place"

#include "stage_place.h"
#include "stage_schema.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "log.h"

#define TRIES 100 /* each stands for somebody who removed the folder at just that moment */
#define MACHINE_ID_MAX 64

char *stage_place_machine(void)
{
	AUTO_FREE char *text = NULL;
	size_t len;

	if (util_read_file("/etc/machine-id", 4096, &text, NULL) < 0)
		return strdup("local");
	len = strspn(text, "0123456789abcdef");
	if (len == 0 || len > MACHINE_ID_MAX)
		return strdup("local");
	return strndup(text, len);
}

/* ROOT/v1 and ROOT/v1/<machine-id>/<endpoint>. */
static int endpoint_dir(const char *root, const char *endpoint, char **ret_top, char **ret)
{
	AUTO_FREE char *machine = stage_place_machine();
	AUTO_FREE char *escaped = repo_escape_rev(endpoint);
	AUTO_FREE char *top = util_printf("%s/v1", root);

	if (!machine || !escaped || !top)
		return -ENOMEM;
	*ret = util_printf("%s/%s/%s", top, machine, escaped);
	if (!*ret)
		return -ENOMEM;
	if (ret_top)
		*ret_top = STEAL(top);
	return 0;
}

static void place_fini(struct stage_place *p)
{
	free(p->top);
	free(p->dir);
	free(p->data);
	if (p->lock_fd > 0)
		close(p->lock_fd);
	*p = (struct stage_place){.lock_fd = -1};
}

static int place_init(const char *root, const struct stage_ident *ident, struct stage_place *p)
{
	AUTO_FREE char *rev = repo_escape_rev(ident->rev);
	AUTO_FREE char *base = NULL;
	int rc;

	if (!rev)
		return -ENOMEM;
	if (!*rev || strcmp(rev, ".") == 0 || strcmp(rev, "..") == 0)
		return -EINVAL;
	rc = endpoint_dir(root, ident->endpoint, &p->top, &base);
	if (rc < 0)
		return rc;
	p->dir = util_printf("%s/%s/%s/%s/%s", base, repo_type_api(ident->repo.type), ident->repo.ns,
	                     ident->repo.name, rev);
	if (p->dir)
		p->data = util_printf("%s/data", p->dir);
	return p->data ? 0 : -ENOMEM;
}

static int check_owner(const char *root)
{
	struct stat st;

	if (stat(root, &st) < 0)
		return -errno;
	if (st.st_uid == geteuid())
		return 0;
	log_err("the staging folder %s belongs to user %u, not to %u: choose another with -o staging_dir=",
	        root,
	        (unsigned)st.st_uid, (unsigned)geteuid());
	return -EACCES;
}

static bool has_journal(const char *dir)
{
	AUTO_FREE char *path = util_printf("%s/journal.db", dir);

	return path && access(path, F_OK) == 0;
}

static void log_owner(int fd, const char *dir)
{
	char pid[24] = "";
	ssize_t n = util_pread_all(fd, pid, sizeof(pid) - 1, 0);

	pid[n > 0 ? strspn(pid, "0123456789") : 0] = '\0';
	log_warn("%s is being written by another mount (process %s)", dir, *pid ? pid : "unknown");
}

/* 0: the lock is ours; -EAGAIN: begin again. */
static int take_lock(struct stage_place *p)
{
	struct flock want = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	AUTO_FREE char *path = util_printf("%s/lock", p->dir);
	struct stat ours, there;
	AUTO_CLOSE int fd = -1;
	char pid[24];
	int rc;

	if (!path)
		return -ENOMEM;
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return errno == ENOENT ? -EAGAIN : -errno;
	if (fcntl(fd, F_OFD_SETLK, &want) < 0) {
		if (errno != EAGAIN && errno != EACCES)
			return -errno;
		log_owner(fd, p->dir);
		return -EBUSY;
	}
	if (fstat(fd, &ours) < 0)
		return -errno;
	if (stat(path, &there) < 0)
		return errno == ENOENT ? -EAGAIN : -errno;
	if (ours.st_ino != there.st_ino || ours.st_dev != there.st_dev)
		return -EAGAIN;
	snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
	if (ftruncate(fd, 0) < 0)
		return -errno;
	rc = util_pwrite_all(fd, pid, strlen(pid), 0);
	if (rc < 0)
		return rc;
	p->lock_fd = STEAL(fd);
	return 0;
}

int stage_place_open(const char *root, const struct stage_ident *ident, bool create, struct stage_place *ret)
{
	struct stage_place p = {.lock_fd = -1};
	int rc = place_init(root, ident, &p);

	for (int tries = 0; rc == 0 && tries < TRIES; tries++) {
		if (create)
			rc = util_mkdirs(root);
		else if (!has_journal(p.dir))
			rc = -ENOENT;
		if (rc == 0)
			rc = check_owner(root);
		if (rc == 0 && create) {
			rc = util_mkdirs(p.data);
			if (rc == -ENOENT)
				rc = -EAGAIN; /* somebody removes what we make */
		}
		if (rc == 0)
			rc = take_lock(&p);
		if (rc == 0)
			break;
		if (rc == -EAGAIN)
			rc = 0;
	}
	if (rc == 0 && p.lock_fd < 0)
		rc = -EBUSY;
	if (rc == 0 && !create && !has_journal(p.dir)) {
		/* it went between our look and our lock; ours may be all that is there */
		stage_place_close(&p, true);
		return -ENOENT;
	}
	if (rc < 0) {
		place_fini(&p);
		return rc;
	}
	*ret = p;
	return 0;
}

static void remove_file(const char *dir, const char *name)
{
	AUTO_FREE char *path = util_printf("%s/%s", dir, name);

	if (path && unlink(path) < 0 && errno != ENOENT)
		log_warn("%s: %s", path, strerror(errno));
}

void stage_place_close(struct stage_place *p, bool remove)
{
	if (remove && p->lock_fd > 0) {
		remove_file(p->dir, "journal.db");
		remove_file(p->dir, "journal.db-wal");
		remove_file(p->dir, "journal.db-shm");
		remove_file(p->dir, "reserve");
		for (int version = 1; version < STAGE_SCHEMA; version++) {
			char copy[32];

			snprintf(copy, sizeof(copy), "journal.db.v%d", version);
			remove_file(p->dir, copy);
		}
		(void)rmdir(p->data);
		remove_file(p->dir, "lock"); /* from here on another one may make a folder of its own */
		while (strlen(p->dir) > strlen(p->top) && rmdir(p->dir) == 0)
			*strrchr(p->dir, '/') = '\0';
	}
	place_fini(p);
}

int stage_place_sync(const struct stage_place *p)
{
	AUTO_FREE char *path = strdup(p->data);
	int rc = path ? 0 : -ENOMEM;

	while (rc == 0 && strlen(path) >= strlen(p->top)) {
		rc = util_fsync_dir(path);
		*strrchr(path, '/') = '\0';
	}
	return rc == 0 ? util_fsync_dir(*path ? path : "/") : rc; /* ROOT itself holds v1 */
}

/* -- the list of all -- */

/* Calls `each` for the folders in `dir`. Its non-zero answer ends it. */
typedef int (*entry_fn)(void *arg, const char *path, const char *name);
static int each_entry(const char *dir, entry_fn each, void *arg)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	int rc = 0;

	if (!d)
		return errno == ENOENT || errno == ENOTDIR ? 0 : -errno;
	while (rc == 0 && (errno = 0, e = readdir(d))) {
		AUTO_FREE char *path = NULL;

		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		path = util_printf("%s/%s", dir, e->d_name);
		rc = path ? each(arg, path, e->d_name) : -ENOMEM;
	}
	if (rc == 0 && errno)
		rc = -errno;
	closedir(d);
	return rc;
}

struct scan {
	stage_scan_fn each;
	void *arg;
	struct repo_id repo;
};

static int scan_branch(void *arg, const char *path, const char *name)
{
	struct scan *scan = arg;
	AUTO_FREE char *rev = NULL;

	if (!has_journal(path))
		return 0;
	rev = repo_unescape(name);
	if (!rev) {
		log_warn("%s is not the name of a branch: left alone", path);
		return 0;
	}
	return scan->each(scan->arg, &scan->repo, rev);
}

static int scan_repo(void *arg, const char *path, const char *name)
{
	struct scan *scan = arg;

	if (!repo_name_valid(name))
		return 0;
	memcpy(scan->repo.name, name, strlen(name) + 1);
	return each_entry(path, scan_branch, scan);
}

static int scan_ns(void *arg, const char *path, const char *name)
{
	struct scan *scan = arg;

	if (!repo_name_valid(name))
		return 0;
	memcpy(scan->repo.ns, name, strlen(name) + 1);
	return each_entry(path, scan_repo, scan);
}

int stage_scan(const char *root, const char *endpoint, const struct repo_id *only, stage_scan_fn each,
               void *arg)
{
	static const enum repo_type types[] = {REPO_MODEL, REPO_DATASET, REPO_SPACE};
	struct scan scan = {.each = each, .arg = arg};
	AUTO_FREE char *base = NULL;
	int rc = endpoint_dir(root, endpoint, NULL, &base);

	if (rc == 0 && only) {
		AUTO_FREE char *dir = util_printf("%s/%s/%s/%s", base, repo_type_api(only->type), only->ns,
		                                  only->name);

		scan.repo = *only;
		return dir ? each_entry(dir, scan_branch, &scan) : -ENOMEM;
	}
	for (size_t i = 0; rc == 0 && i < ARRAY_LEN(types); i++) {
		AUTO_FREE char *dir = util_printf("%s/%s", base, repo_type_api(types[i]));

		scan.repo.type = types[i];
		rc = dir ? each_entry(dir, scan_ns, &scan) : -ENOMEM;
	}
	return rc;
}
