/* floor: the least that a FUSE server can do, against which tests/bench holds hugfs.
 *
 *	floor MOUNTPOINT SIZE FOLDER
 *
 * Serves one file `data` of SIZE bytes whose reads are answered from a buffer in memory, and writes whatever is
 * created beside it into FOLDER, by one pwrite a request. No cache, no checks, no journal: what it needs is what the
 * transport costs. Settings are those that fuse-notes found best for hugfs too. Runs in the foreground until it is
 * unmounted. */
#define FUSE_USE_VERSION 314
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DATA_INO 2
#define FIRST_INO 3
#define NAMES_MAX 64
#define DAY_S 86400.0
#define REQUEST_MAX (1 << 20)

static uint64_t size;
static int folder;
static char *buffer;
static char names[NAMES_MAX][256]; /* files made here, by ino - FIRST_INO; the loop is told of one at a time */
static unsigned n_names;

static int attributes(fuse_ino_t ino, struct stat *ret)
{
	memset(ret, 0, sizeof(*ret));
	if (ino >= FIRST_INO) {
		if (ino - FIRST_INO >= n_names || fstatat(folder, names[ino - FIRST_INO], ret, 0) < 0)
			return ENOENT;
	} else {
		ret->st_mode = ino == FUSE_ROOT_ID ? S_IFDIR | 0755 : S_IFREG | 0644;
		ret->st_nlink = 1;
		ret->st_size = ino == FUSE_ROOT_ID ? 0 : (off_t)size;
		ret->st_uid = getuid();
		ret->st_gid = getgid();
	}
	ret->st_ino = ino;
	return 0;
}

static int entry(fuse_ino_t ino, struct fuse_entry_param *ret)
{
	*ret = (struct fuse_entry_param){.ino = ino, .attr_timeout = DAY_S, .entry_timeout = DAY_S};
	return attributes(ino, &ret->attr);
}

static void floor_init(void *arg, struct fuse_conn_info *conn)
{
	conn->want &= ~(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
	conn->max_write = REQUEST_MAX;
	conn->max_background = 64;
}

static void floor_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param e;
	int r = ENOENT;

	if (strcmp(name, "data") == 0)
		r = entry(DATA_INO, &e);
	for (unsigned i = 0; i < n_names && r; i++) {
		if (strcmp(name, names[i]) == 0)
			r = entry(FIRST_INO + i, &e);
	}
	if (r)
		fuse_reply_err(req, r);
	else
		fuse_reply_entry(req, &e);
}

static void floor_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;
	int r = attributes(ino, &st);

	if (r)
		fuse_reply_err(req, r);
	else
		fuse_reply_attr(req, &st, ino == DATA_INO ? DAY_S : 0);
}

static void floor_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int set, struct fuse_file_info *fi)
{
	if ((set & FUSE_SET_ATTR_SIZE) && fi && ftruncate((int)fi->fh, st->st_size) < 0)
		fuse_reply_err(req, errno);
	else
		floor_getattr(req, ino, fi);
}

static void floor_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if (ino != DATA_INO) {
		fuse_reply_err(req, EACCES);
		return;
	}
	fi->keep_cache = 1;
	fi->noflush = 1;
	fuse_reply_open(req, fi);
}

static void floor_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct fuse_entry_param e;
	int fd = -1;

	if (n_names < NAMES_MAX && strlen(name) < sizeof(names[0]))
		fd = openat(folder, name, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0) {
		fuse_reply_err(req, EIO);
		return;
	}
	strcpy(names[n_names], name);
	fi->fh = (uint64_t)fd;
	if (entry(FIRST_INO + n_names++, &e) != 0)
		fuse_reply_err(req, EIO);
	else
		fuse_reply_create(req, &e, fi);
}

static void floor_read(fuse_req_t req, fuse_ino_t ino, size_t want, off_t off, struct fuse_file_info *fi)
{
	uint64_t left = (uint64_t)off < size ? size - (uint64_t)off : 0;

	fuse_reply_buf(req, buffer, want < left ? want : left);
}

static void floor_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t n, off_t off,
                        struct fuse_file_info *fi)
{
	ssize_t wrote = pwrite((int)fi->fh, data, n, off);

	if (wrote < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_write(req, (size_t)wrote);
}

static void floor_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if (ino >= FIRST_INO)
		close((int)fi->fh);
	fuse_reply_err(req, 0);
}

static void floor_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	fuse_reply_err(req, 0);
}

static void floor_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t n)
{
	fuse_reply_err(req, ENOSYS);
}

static const struct fuse_lowlevel_ops ops = {
	.init = floor_init,
	.lookup = floor_lookup,
	.getattr = floor_getattr,
	.setattr = floor_setattr,
	.open = floor_open,
	.create = floor_create,
	.read = floor_read,
	.write = floor_write,
	.flush = floor_flush,
	.release = floor_release,
	.getxattr = floor_getxattr,
};

int main(int argc, char **argv)
{
	char *fuse_argv[] = {argv[0], NULL};
	struct fuse_args args = FUSE_ARGS_INIT(1, fuse_argv);
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	struct fuse_session *session;
	int r = 1;

	if (argc != 4 || !config) {
		fputs("usage: floor MOUNTPOINT SIZE FOLDER\n", stderr);
		return 2;
	}
	size = strtoull(argv[2], NULL, 10);
	folder = open(argv[3], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	buffer = malloc(REQUEST_MAX);
	session = fuse_session_new(&args, &ops, sizeof(ops), NULL);
	if (folder < 0 || !buffer || !session) {
		perror("floor");
		return 1;
	}
	memset(buffer, 'f', REQUEST_MAX);
	if (fuse_set_signal_handlers(session) == 0 && fuse_session_mount(session, argv[1]) == 0) {
		r = fuse_session_loop_mt(session, config);
		fuse_session_unmount(session);
	}
	fuse_session_destroy(session);
	fuse_loop_cfg_destroy(config);
	return r ? 1 : 0;
}
