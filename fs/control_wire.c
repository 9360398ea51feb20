/* control_wire: what is said on the control socket, and the client's end of it.
 *
 * Not for deciding anything: no request is understood here. What is said are records: a line with its
 * name, then "key=value" lines (values with \n and \\ escaped), and "end" after the last. One table for
 * each record says its fields, for writing, reading and freeing alike; unknown keys and records are
 * skipped, so that a newer end may say more.
 *
 * Any thread; no state. The client's calls block until the daemon has answered. */
#define LOG_MODULE "control"

#include "control_internal.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "log.h"

#define REQUEST_MAX ((size_t)256 << 10) /* a path, a title and a description */
#define ANSWER_MAX ((size_t)512 << 20)  /* CONTROL_CHANGES_MAX paths of 4 KiB for some branches */

/* -- records -- */

enum field_kind { TEXT, UNSIGNED, SIGNED, FLAG };
struct field {
	const char *key;
	enum field_kind kind;
	size_t at;
};
#define FIELD(type, member, kind) {#member, kind, offsetof(struct control_##type, member)}

static const struct field request_fields[] = {
	FIELD(request, verb, UNSIGNED),
	FIELD(request, path, TEXT),
	FIELD(request, endpoint, TEXT),
	FIELD(request, title, TEXT),
	FIELD(request, description, TEXT),
	FIELD(request, interrupted, FLAG),
	FIELD(request, on_conflict, TEXT),
	FIELD(request, outcome, TEXT),
	FIELD(request, limit, UNSIGNED),
	FIELD(request, pr, FLAG),
};
static const struct field answer_fields[] = {
	FIELD(answer, error, SIGNED),
	FIELD(answer, error_text, TEXT),
	FIELD(answer, pid, UNSIGNED),
	FIELD(answer, source, TEXT),
	FIELD(answer, mountpoint, TEXT),
	FIELD(answer, endpoint, TEXT),
	FIELD(answer, read_only, FLAG),
	FIELD(answer, unmounted, FLAG),
	FIELD(answer, cache_bytes, UNSIGNED),
	FIELD(answer, cache_max, UNSIGNED),
	FIELD(answer, cache_objects, UNSIGNED),
	FIELD(answer, parked, UNSIGNED),
};
static const struct field rev_fields[] = {
	FIELD(rev, repo, TEXT),
	FIELD(rev, revision, TEXT),
	FIELD(rev, head, TEXT),
	FIELD(rev, writable, FLAG),
	FIELD(rev, files, UNSIGNED),
	FIELD(rev, deletions, UNSIGNED),
	FIELD(rev, open, UNSIGNED),
	FIELD(rev, interrupted, UNSIGNED),
	FIELD(rev, conflicts, UNSIGNED),
	FIELD(rev, bytes, UNSIGNED),
	FIELD(rev, phase, TEXT),
	FIELD(rev, next_ms, SIGNED),
	FIELD(rev, sent, UNSIGNED),
	FIELD(rev, to_send, UNSIGNED),
	FIELD(rev, transaction, TEXT),
	FIELD(rev, pr_url, TEXT),
	FIELD(rev, last_commit, TEXT),
	FIELD(rev, last_error, SIGNED),
	FIELD(rev, last_text, TEXT),
	FIELD(rev, error, SIGNED),
	FIELD(rev, error_text, TEXT),
	FIELD(rev, commit, TEXT),
	FIELD(rev, url, TEXT),
	FIELD(rev, left_out, UNSIGNED),
};
static const struct field change_fields[] = {
	FIELD(change, path, TEXT),
	FIELD(change, state, TEXT),
	FIELD(change, folder, FLAG),
	FIELD(change, size, UNSIGNED),
	FIELD(change, from, TEXT),
	FIELD(change, old_size, UNSIGNED),
};
static const struct field item_fields[] = {
	FIELD(item, id, TEXT),
	FIELD(item, author, TEXT),
	FIELD(item, title, TEXT),
	FIELD(item, date_s, SIGNED),
};

struct record {
	const char *name;
	const struct field *fields;
	size_t n;
};
#define RECORD(name) {#name, name##_fields, ARRAY_LEN(name##_fields)}
static const struct record request_record = RECORD(request);
static const struct record answer_record = RECORD(answer);
static const struct record rev_record = RECORD(rev);
static const struct record change_record = RECORD(change);
static const struct record item_record = RECORD(item);

static void *member(const void *base, size_t at)
{
	return (char *)(uintptr_t)base + at;
}

static void fini_record(const struct record *rec, void *base)
{
	for (size_t i = 0; i < rec->n; i++) {
		if (rec->fields[i].kind == TEXT)
			util_freep(member(base, rec->fields[i].at));
	}
}

static void fini_rev(struct control_rev *rev)
{
	for (size_t i = 0; i < rev->n_changes; i++)
		fini_record(&change_record, &rev->changes[i]);
	free(rev->changes);
	fini_record(&rev_record, rev);
}

void control_answer_fini(struct control_answer *a)
{
	for (size_t i = 0; i < a->n_revs; i++)
		fini_rev(&a->revs[i]);
	free(a->revs);
	for (size_t i = 0; i < a->n_items; i++)
		fini_record(&item_record, &a->items[i]);
	free(a->items);
	fini_record(&answer_record, a);
	*a = (struct control_answer){0};
}

static int put_text(struct buf *out, const char *key, const char *value)
{
	int r = buf_addf(out, "%s=", key);

	for (const char *p = value; r == 0 && *p;) {
		size_t n = strcspn(p, "\n\\");

		r = buf_add(out, p, n);
		p += n;
		if (r == 0 && *p) {
			r = buf_add(out, *p == '\n' ? "\\n" : "\\\\", 2);
			p++;
		}
	}
	return r < 0 ? r : buf_add(out, "\n", 1);
}

static int put_record(struct buf *out, const struct record *rec, const void *base)
{
	int r = buf_addf(out, "%s\n", rec->name);

	for (size_t i = 0; r == 0 && i < rec->n; i++) {
		const struct field *f = &rec->fields[i];
		const void *at = member(base, f->at);

		switch (f->kind) {
		case TEXT:
			if (*(char *const *)at)
				r = put_text(out, f->key, *(char *const *)at);
			break;
		case UNSIGNED:
			r = buf_addf(out, "%s=%" PRIu64 "\n", f->key, *(const uint64_t *)at);
			break;
		case SIGNED:
			r = buf_addf(out, "%s=%" PRId64 "\n", f->key, *(const int64_t *)at);
			break;
		case FLAG:
			r = buf_addf(out, "%s=%d\n", f->key, *(const bool *)at);
			break;
		}
	}
	return r;
}

static void unescape(char *text)
{
	char *out = text;

	for (char *in = text; *in; in++) {
		if (*in == '\\' && in[1])
			*out++ = *++in == 'n' ? '\n' : *in;
		else
			*out++ = *in;
	}
	*out = '\0';
}

static int set_field(const struct record *rec, void *base, const char *key, char *value)
{
	for (size_t i = 0; i < rec->n; i++) {
		const struct field *f = &rec->fields[i];
		void *at = member(base, f->at);

		if (strcmp(f->key, key) != 0)
			continue;
		switch (f->kind) {
		case TEXT:
			unescape(value);
			free(*(char **)at);
			*(char **)at = strdup(value);
			return *(char **)at ? 0 : -ENOMEM;
		case UNSIGNED:
			*(uint64_t *)at = strtoull(value, NULL, 10);
			return 0;
		case SIGNED:
			*(int64_t *)at = strtoll(value, NULL, 10);
			return 0;
		case FLAG:
			*(bool *)at = *value == '1';
			return 0;
		}
	}
	return 0;
}

void *control_append(void *array, size_t *n, size_t size, size_t max)
{
	void *mem;
	char *at;

	memcpy(&mem, array, sizeof(mem));
	if (*n >= max)
		return NULL;
	if ((*n & (*n - 1)) == 0) {
		mem = reallocarray(mem, *n ? *n * 2 : 1, size);
		if (!mem)
			return NULL;
		memcpy(array, &mem, sizeof(mem));
	}
	at = (char *)mem + (*n)++ * size;
	memset(at, 0, size);
	return at;
}

/* Where the lines after the record's name go. */
struct target {
	const struct record *rec; /* NULL: nobody knows this record */
	void *base;
};

static int open_answer(struct control_answer *a, const char *name, struct target *ret)
{
	*ret = (struct target){0};
	if (strcmp(name, answer_record.name) == 0) {
		*ret = (struct target){&answer_record, a};
	} else if (strcmp(name, rev_record.name) == 0) {
		ret->rec = &rev_record;
		ret->base = control_append(&a->revs, &a->n_revs, sizeof(*a->revs), CONTROL_REVS_MAX);
	} else if (strcmp(name, item_record.name) == 0) {
		ret->rec = &item_record;
		ret->base = control_append(&a->items, &a->n_items, sizeof(*a->items), CONTROL_ITEMS_MAX);
	} else if (strcmp(name, change_record.name) == 0 && a->n_revs > 0) {
		struct control_rev *rev = &a->revs[a->n_revs - 1];

		ret->rec = &change_record;
		ret->base = control_append(&rev->changes, &rev->n_changes, sizeof(*rev->changes),
		                           CONTROL_CHANGES_MAX);
	}
	return ret->rec && !ret->base ? -ENOMEM : 0;
}

/* Takes `text` apart, which ends with "end\n". One of req and ans is where it goes. */
static int decode(char *text, struct control_request *req, struct control_answer *ans)
{
	struct target to = {0};
	char *save = NULL;
	int r = 0;

	for (char *line = strtok_r(text, "\n", &save); line && r == 0; line = strtok_r(NULL, "\n", &save)) {
		char *equals = strchr(line, '=');

		if (equals) {
			*equals = '\0';
			if (to.rec)
				r = set_field(to.rec, to.base, line, equals + 1);
		} else if (strcmp(line, "end") == 0) {
			return 0;
		} else if (ans) {
			r = open_answer(ans, line, &to);
		} else {
			to.rec = strcmp(line, request_record.name) == 0 ? &request_record : NULL;
			to.base = req;
		}
	}
	return r < 0 ? r : -EPROTO;
}

static int encode_answer(const struct control_answer *a, struct buf *out)
{
	int r = put_record(out, &answer_record, a);

	for (size_t i = 0; r == 0 && i < a->n_revs; i++) {
		r = put_record(out, &rev_record, &a->revs[i]);
		for (size_t k = 0; r == 0 && k < a->revs[i].n_changes; k++)
			r = put_record(out, &change_record, &a->revs[i].changes[k]);
	}
	for (size_t i = 0; r == 0 && i < a->n_items; i++)
		r = put_record(out, &item_record, &a->items[i]);
	return r < 0 ? r : buf_add(out, "end\n", 4);
}

/* -- bytes -- */

/* Reads up to and with "end\n". -EPROTO: the peer ended before. */
static int receive(int fd, struct buf *in)
{
	char chunk[16384];

	for (;;) {
		ssize_t n = recv(fd, chunk, sizeof(chunk), 0);
		int r;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EPROTO;
		r = buf_add(in, chunk, (size_t)n);
		if (r < 0)
			return r;
		if (in->len >= 5 && memcmp(in->data + in->len - 5, "\nend\n", 5) == 0)
			return 0;
	}
}

static int send_all(int fd, const struct buf *out)
{
	for (size_t done = 0; done < out->len;) {
		ssize_t n = send(fd, out->data + done, out->len - done, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	return 0;
}

int control_recv_request(int fd, struct control_request *ret)
{
	AUTO_BUF in = {.max = REQUEST_MAX};
	int r = receive(fd, &in);

	if (r == 0)
		r = decode(in.data, ret, NULL);
	if (r == 0 && !ret->path)
		r = (ret->path = strdup("")) ? 0 : -ENOMEM;
	return r;
}

void control_request_fini(struct control_request *req)
{
	fini_record(&request_record, req);
}

int control_send_answer(int fd, const struct control_answer *a)
{
	AUTO_BUF out = {.max = ANSWER_MAX};
	int r = encode_answer(a, &out);

	return r < 0 ? r : send_all(fd, &out);
}

/* -- where sockets lie -- */

static bool fits(const char *dir)
{
	struct sockaddr_un addr;

	return strlen(dir) + sizeof("/0123456789abcdef-1234567890.sock.new") <= sizeof(addr.sun_path);
}

/* The i-th folder in which a mount of `uid` may have its socket. NULL: no such; caller frees. */
static char *folder(uid_t uid, unsigned i)
{
	const char *runtime = uid == geteuid() ? getenv("XDG_RUNTIME_DIR") : NULL;

	if (!runtime || runtime[0] != '/')
		i++;
	switch (i) {
	case 0:
		return util_printf("%s/hugfs", runtime);
	case 1:
		return util_printf("/tmp/hugfs-%lu", (unsigned long)uid);
	case 2: /* a mount that was made with a runtime folder, asked by somebody without (sudo, cron) */
		return util_printf("/run/user/%lu/hugfs", (unsigned long)uid);
	default:
		return NULL;
	}
}

/* Nobody else can put anything there. */
static bool folder_is_ours(const char *dir, uid_t uid)
{
	struct stat st;

	return lstat(dir, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == uid && (st.st_mode & 077) == 0;
}

int control_make_folder(char **ret)
{
	int r = -ENOENT;

	for (unsigned i = 0;; i++) {
		AUTO_FREE char *dir = folder(geteuid(), i);

		if (!dir || (r < 0 && strncmp(dir, "/run/user/", 10) == 0))
			break;
		if (!fits(dir))
			continue;
		if (mkdir(dir, 0700) < 0 && errno != EEXIST) {
			r = -errno;
			continue;
		}
		if (!folder_is_ours(dir, geteuid())) {
			log_err("%s is not a folder of mode 0700 that belongs to us: remove it, or set "
			        "XDG_RUNTIME_DIR", dir);
			return -EPERM;
		}
		*ret = STEAL(dir);
		return 0;
	}
	log_err("there is no folder for the control socket (%s): set XDG_RUNTIME_DIR", strerror(-r));
	return r;
}

unsigned long long control_name_hash(const char *mountpoint)
{
	return (unsigned long long)hash_text64(0, mountpoint, strlen(mountpoint));
}

int control_address(const char *path, struct sockaddr_un *ret)
{
	*ret = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof(ret->sun_path))
		return -ENAMETOOLONG;
	memcpy(ret->sun_path, path, strlen(path) + 1);
	return 0;
}

/* -- the client's end -- */

void control_sockets_free(char **sockets)
{
	for (char **s = sockets; s && *s; s++)
		free(*s);
	free(sockets);
}

void control_sockets_freep(char ***sockets)
{
	control_sockets_free(*sockets);
}

static int connect_to(const char *path, int *ret_fd)
{
	struct sockaddr_un addr;
	int r = control_address(path, &addr);
	int fd;

	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		r = -errno;
		close(fd);
		return r;
	}
	*ret_fd = fd;
	return 0;
}

static bool is_socket_name(const char *name, const char *mountpoint)
{
	size_t n = strlen(name);
	char want[20];

	if (n < 6 || strcmp(name + n - 5, ".sock") != 0)
		return false;
	if (!mountpoint)
		return true;
	snprintf(want, sizeof(want), "%016llx-", control_name_hash(mountpoint));
	return strncmp(name, want, strlen(want)) == 0;
}

/* A daemon listens there. The socket of one that was killed is removed. */
static bool is_alive(const char *path)
{
	int fd, r = connect_to(path, &fd);

	if (r == 0)
		close(fd);
	if (r == -ECONNREFUSED)
		unlink(path);
	return r == 0;
}

static int add_sockets(const char *dir, const char *mountpoint, char ***sockets, size_t *n)
{
	DIR *d = opendir(dir);
	struct dirent *ent;
	int r = 0;

	while (d && r == 0 && (ent = readdir(d))) {
		AUTO_FREE char *path = util_printf("%s/%s", dir, ent->d_name);
		char **slot;

		if (!path)
			r = -ENOMEM;
		if (r < 0 || !is_socket_name(ent->d_name, mountpoint) || !is_alive(path))
			continue;
		(*n)--; /* the NULL at the end */
		slot = control_append(sockets, n, sizeof(*slot), SIZE_MAX);
		if (!slot) {
			(*n)++;
			r = -ENOMEM;
			continue;
		}
		*slot = STEAL(path);
		slot = control_append(sockets, n, sizeof(*slot), SIZE_MAX);
		if (!slot)
			r = -ENOMEM;
	}
	if (d)
		closedir(d);
	return r;
}

int control_sockets(uid_t uid, const char *mountpoint, char ***ret)
{
	char **sockets = NULL;
	size_t n = 0;
	int r = control_append(&sockets, &n, sizeof(*sockets), SIZE_MAX) ? 0 : -ENOMEM;

	for (unsigned i = 0; r == 0; i++) {
		AUTO_FREE char *dir = folder(uid, i);

		if (!dir)
			break;
		if (folder_is_ours(dir, uid))
			r = add_sockets(dir, mountpoint, &sockets, &n);
	}
	if (r < 0) {
		control_sockets_free(sockets);
		return r;
	}
	*ret = sockets;
	return 0;
}

int control_send(const char *socket, const struct control_request *req, int *ret_fd)
{
	AUTO_BUF out = {.max = REQUEST_MAX};
	int fd, r = connect_to(socket, &fd);

	if (r < 0)
		return r;
	r = put_record(&out, &request_record, req);
	if (r == 0)
		r = buf_add(&out, "end\n", 4);
	if (r == 0)
		r = send_all(fd, &out);
	if (r < 0) {
		close(fd);
		return r;
	}
	*ret_fd = fd;
	return 0;
}

int control_receive(int fd, struct control_answer *ret)
{
	AUTO_BUF in = {.max = ANSWER_MAX};
	struct control_answer ans = {0};
	int r = receive(fd, &in);

	if (r == 0)
		r = decode(in.data, NULL, &ans);
	if (r < 0) {
		control_answer_fini(&ans);
		return r;
	}
	*ret = ans;
	return 0;
}

int control_ask(const char *socket, const struct control_request *req, struct control_answer *ret,
                int *ret_fd)
{
	int fd, r = control_send(socket, req, &fd);

	if (r < 0)
		return r;
	r = control_receive(fd, ret);
	if (r == 0 && ret_fd)
		*ret_fd = fd;
	else
		close(fd);
	return r;
}

/* Until the peer has ended, at most until `until_ms`. */
static void wait_for_end(int fd, int64_t until_ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	char byte;

	for (;;) {
		int64_t left = until_ms - util_now_ms();

		if (left <= 0)
			return;
		if (poll(&p, 1, (int)MIN(left, INT_MAX)) <= 0)
			continue;
		if (recv(fd, &byte, 1, MSG_DONTWAIT) <= 0 && errno != EAGAIN)
			return;
	}
}

void control_take_over(const char *endpoint, const struct repo_id *repo, int ms)
{
	char **sockets CLEANUP(control_sockets_freep) = NULL;
	AUTO_FREE char *where = strdup(endpoint);
	char name[REPO_TEXT_MAX] = "";
	struct control_request req = {.verb = CONTROL_YIELD, .path = name, .endpoint = where};
	int64_t until = util_now_ms() + ms;

	if (repo)
		repo_text(repo, name);
	if (!where || control_sockets(geteuid(), NULL, &sockets) < 0)
		return;
	for (char **s = sockets; *s; s++) {
		struct pollfd p = {.events = POLLIN};
		struct control_answer ans = {0};

		if (control_send(*s, &req, &p.fd) < 0)
			continue;
		/* A daemon that ends now does not answer any more: its end is as good. */
		if (poll(&p, 1, ms) > 0 && control_receive(p.fd, &ans) == 0 && ans.error == 0)
			wait_for_end(p.fd, until);
		control_answer_fini(&ans);
		close(p.fd);
	}
}
