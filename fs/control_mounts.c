/* control_mounts: the kernel's side of a mount, seen from outside: which mount a path lies in, taking one
 * away, who holds files in it.
 *
 * Not for talking to the daemon (control.c). Used by the verbs of cli (one thread) and by the daemon when
 * it unmounts itself (any thread): no state. What it reads is the kernel's text in /proc, which other
 * users can put names into, so everything is taken as bytes and what is shown is cleaned. */
#define LOG_MODULE "control"

#include "control.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "log.h"

#define TYPE "fuse.hugfs"
#define MOUNTINFO_MAX ((size_t)16 << 20) /* some 100,000 mounts: more than the kernel allows in a namespace */
#define HOLDERS_MAX 20                   /* processes that are named; people read them */

/* Where libfuse's own fusermount3 may lie; it tries its compiled-in folder before PATH. */
static const char *const fusermount_dirs[] = {"/usr/bin", "/bin", "/usr/local/bin"};

void control_mount_fini(struct control_mount *m)
{
	free(m->mountpoint);
	free(m->path);
	*m = (struct control_mount){0};
}

/* -- mountinfo (proc(5)) -- */

struct entry {
	char *dev, *root, *point, *type, *options; /* into the line */
};

/* \040 and the like, in place. */
static void unescape(char *text)
{
	char *out = text;

	for (char *in = text; *in; out++) {
		if (in[0] == '\\' && in[1] >= '0' && in[1] <= '3' && in[2] >= '0' && in[2] <= '7' &&
		    in[3] >= '0' && in[3] <= '7') {
			*out = (char)((in[1] - '0') << 6 | (in[2] - '0') << 3 | (in[3] - '0'));
			in += 4;
		} else {
			*out = *in++;
		}
	}
	*out = '\0';
}

/* "36 35 0:44 /root /mnt rw,noatime shared:1 - fuse.hugfs hugfs rw,user_id=0" */
static bool parse_entry(char *line, struct entry *ret)
{
	char *word[6], *rest[3], *save = NULL;
	char *dash = strstr(line, " - ");

	if (!dash)
		return false;
	*dash = '\0';
	for (size_t i = 0; i < ARRAY_LEN(word); i++) {
		word[i] = strtok_r(i ? NULL : line, " ", &save);
		if (!word[i])
			return false;
	}
	for (size_t i = 0; i < ARRAY_LEN(rest); i++) {
		rest[i] = strtok_r(i ? NULL : dash + 3, " ", &save);
		if (!rest[i])
			return false;
	}
	*ret = (struct entry){word[2], word[3], word[4], rest[0], rest[2]};
	unescape(ret->root);
	unescape(ret->point);
	return true;
}

/* What `path` is called below `top`, or NULL when it does not lie there. */
static const char *below(const char *path, const char *top)
{
	size_t n = strcmp(top, "/") == 0 ? 0 : strlen(top);

	if (strncmp(path, top, n) != 0)
		return NULL;
	if (path[n] == '\0')
		return path + n;
	return path[n] == '/' ? path + n + 1 : NULL;
}

static uid_t mounted_by(const char *options)
{
	const char *at = strstr(options, "user_id=");

	return at ? (uid_t)strtoul(at + strlen("user_id="), NULL, 10) : 0;
}

/* The entry that covers `path`: the longest mountpoint above it, and of equal ones the last, which lies on
 * top. */
static bool find_covering(char *text, const char *path, struct entry *ret)
{
	struct entry e;
	size_t best = 0;
	char *save = NULL;

	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (!parse_entry(line, &e) || !below(path, e.point) || strlen(e.point) < best)
			continue;
		best = strlen(e.point);
		*ret = e;
	}
	return best > 0;
}

/* The mountpoint of the whole of `dev`, of which a bind mount shows a folder. */
static bool find_whole(char *text, const char *dev, struct entry *ret)
{
	struct entry e;
	char *save = NULL;

	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (!parse_entry(line, &e) || strcmp(e.dev, dev) != 0 || strcmp(e.root, "/") != 0)
			continue;
		*ret = e;
		return true;
	}
	return false;
}

/* `path` without symlinks. What cannot be looked at (it was deleted, or its mount is dead) keeps its name
 * below the rest. */
static int resolve(const char *path, char **ret)
{
	AUTO_FREE char *copy = strdup(path);
	AUTO_FREE char *parent = NULL;
	char *full = realpath(path, NULL);
	char *slash, *name;
	size_t n;
	int r;

	if (full) {
		*ret = full;
		return 0;
	}
	if (!copy)
		return -ENOMEM;
	for (n = strlen(copy); n > 1 && copy[n - 1] == '/'; n--)
		copy[n - 1] = '\0';
	slash = strrchr(copy, '/');
	name = slash ? slash + 1 : copy;
	if (!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return -ENOENT;
	if (slash)
		*slash = '\0';
	r = resolve(!slash ? "." : slash == copy ? "/" : copy, &parent);
	if (r == 0) {
		*ret = util_printf("%s/%s", strcmp(parent, "/") == 0 ? "" : parent, name);
		r = *ret ? 0 : -ENOMEM;
	}
	return r;
}

int control_find(const char *path, struct control_mount *ret)
{
	AUTO_FREE char *full = NULL;
	AUTO_FREE char *text = NULL;
	AUTO_FREE char *again = NULL;
	struct control_mount found = {0};
	struct entry e, whole;
	const char *rest;
	int r = strlen(path) < PATH_MAX ? resolve(path, &full) : -ENAMETOOLONG;

	if (r < 0)
		return r;
	r = util_read_file("/proc/self/mountinfo", MOUNTINFO_MAX, &text, NULL);
	if (r < 0)
		return r;
	again = strdup(text);
	if (!again)
		return -ENOMEM;
	if (!find_covering(text, full, &e) || strcmp(e.type, TYPE) != 0)
		return -ENOENT;
	rest = below(full, e.point);
	whole = e;
	if (strcmp(e.root, "/") != 0 && !find_whole(again, e.dev, &whole))
		return -ENOENT;
	found.uid = mounted_by(e.options);
	found.mountpoint = strdup(whole.point);
	if (strcmp(e.root, "/") == 0)
		found.path = strdup(rest);
	else
		found.path = util_printf("%s%s%s", e.root + 1, *rest ? "/" : "", rest);
	if (!found.mountpoint || !found.path) {
		control_mount_fini(&found);
		return -ENOMEM;
	}
	*ret = found;
	return 0;
}

/* -- unmounting -- */

bool control_have_fusermount(void)
{
	const char *path = getenv("PATH");
	char file[PATH_MAX];

	for (size_t i = 0; i < ARRAY_LEN(fusermount_dirs); i++) {
		snprintf(file, sizeof(file), "%s/fusermount3", fusermount_dirs[i]);
		if (access(file, X_OK) == 0)
			return true;
	}
	while (path && *path) {
		size_t n = strcspn(path, ":");

		if (n < PATH_MAX - 16) {
			snprintf(file, sizeof(file), "%.*s/fusermount3", (int)n, path);
			if (access(file, X_OK) == 0)
				return true;
		}
		path += n + (path[n] == ':');
	}
	return false;
}

/* Runs fusermount3; what it says goes to `said`. Its exit status, or -errno. */
static int run_fusermount(const char *mountpoint, bool lazy, struct buf *said)
{
	const char *argv[] = {"fusermount3", "-u", "--", mountpoint, NULL, NULL};
	const char *const env[] = {"LC_ALL=C", "PATH=/usr/local/bin:/usr/bin:/bin", NULL};
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none, usual;
	int ends[2], status;
	char chunk[512];
	ssize_t n;
	pid_t pid;
	int err;

	if (lazy) {
		argv[2] = "-z";
		argv[3] = "--";
		argv[4] = mountpoint;
	}
	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	sigemptyset(&none);
	sigemptyset(&usual);
	sigaddset(&usual, SIGPIPE);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &usual);
	err = posix_spawnp(&pid, argv[0], &actions, &attr, (char *const *)argv, (char *const *)env);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attr);
	close(ends[1]);
	if (err) {
		close(ends[0]);
		return -err;
	}
	while ((n = read(ends[0], chunk, sizeof(chunk))) > 0 || (n < 0 && errno == EINTR)) {
		if (n > 0 && buf_add(said, chunk, (size_t)n) < 0)
			break;
	}
	close(ends[0]);
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : -EINTR;
}

int control_detach(const char *mountpoint, bool lazy)
{
	AUTO_BUF said = {.max = 4096};
	int r;

	if (geteuid() == 0) {
		if (umount2(mountpoint, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0)
			return 0;
		if (errno != EPERM)
			return -errno;
	}
	r = run_fusermount(mountpoint, lazy, &said);
	if (r <= 0)
		return r;
	if (said.data && strstr(said.data, "busy"))
		return -EBUSY;
	if (said.data && (strstr(said.data, "not found in") || strstr(said.data, "Invalid argument")))
		return -EINVAL;
	log_warn("unmounting %s: %s", mountpoint, said.data ? said.data : "fusermount3 failed");
	return -EPERM;
}

/* -- who holds it -- */

static bool link_lies_in(const char *link, const char *mountpoint)
{
	char target[PATH_MAX];
	ssize_t n = readlink(link, target, sizeof(target) - 1);

	if (n < 0)
		return false;
	target[n] = '\0';
	return below(target, mountpoint) != NULL;
}

static bool has_open(const char *proc, const char *mountpoint)
{
	char path[PATH_MAX];
	bool found = false;
	struct dirent *ent;
	DIR *dir;

	snprintf(path, sizeof(path), "%s/fd", proc);
	dir = opendir(path);
	if (!dir)
		return false;
	while (!found && (ent = readdir(dir))) {
		snprintf(path, sizeof(path), "%s/fd/%s", proc, ent->d_name);
		found = ent->d_name[0] != '.' && link_lies_in(path, mountpoint);
	}
	closedir(dir);
	return found;
}

static bool has_mapped(const char *proc, const char *mountpoint)
{
	AUTO_FREE char *line = NULL;
	AUTO_FCLOSE FILE *maps = NULL;
	char path[PATH_MAX];
	bool found = false;
	size_t cap = 0;

	snprintf(path, sizeof(path), "%s/maps", proc);
	maps = fopen(path, "re");
	while (maps && !found && getline(&line, &cap, maps) > 0) {
		char *at = strchr(line, '/');

		line[strcspn(line, "\n")] = '\0';
		found = at && below(at, mountpoint);
	}
	return found;
}

static bool holds(const char *proc, const char *mountpoint)
{
	static const char *const links[] = {"cwd", "root", "exe"};
	char path[PATH_MAX];

	for (size_t i = 0; i < ARRAY_LEN(links); i++) {
		snprintf(path, sizeof(path), "%s/%s", proc, links[i]);
		if (link_lies_in(path, mountpoint))
			return true;
	}
	return has_open(proc, mountpoint) || has_mapped(proc, mountpoint);
}

/* Its name, with nothing in it that moves a terminal's cursor. */
static void name_of(const char *proc, char *ret, size_t size)
{
	AUTO_FREE char *text = NULL;
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/comm", proc);
	if (util_read_file(path, 64, &text, NULL) < 0) {
		snprintf(ret, size, "?");
		return;
	}
	text[strcspn(text, "\n")] = '\0';
	for (char *p = text; *p; p++) {
		if (iscntrl((unsigned char)*p))
			*p = '?';
	}
	snprintf(ret, size, "%s", text);
}

int control_holders(const char *mountpoint, struct buf *out)
{
	DIR *dir = opendir("/proc");
	struct dirent *ent;
	unsigned n = 0;
	int r = 0;

	if (!dir)
		return -errno;
	while (r == 0 && (ent = readdir(dir))) {
		char proc[32], name[80];

		if (!isdigit((unsigned char)ent->d_name[0]) || strlen(ent->d_name) > 12)
			continue;
		snprintf(proc, sizeof(proc), "/proc/%.12s", ent->d_name);
		if (strtol(ent->d_name, NULL, 10) == getpid() || !holds(proc, mountpoint))
			continue;
		if (++n > HOLDERS_MAX) {
			r = buf_addf(out, "and more\n");
			break;
		}
		name_of(proc, name, sizeof(name));
		r = buf_addf(out, "%s %s\n", ent->d_name, name);
	}
	closedir(dir);
	return r;
}
