/* tree_saved: the forms of a listing: as the Hub tells it, in memory, and as it is saved in the index.
 *
 * For: building, sorting, leaving out what no filesystem can show; bytes and back. Not for: asking or
 * keeping. Pure. */
#define LOG_MODULE "tree"
#include "tree_int.h"

#include <errno.h>
#include <string.h>

#define SAVED_MAGIC "hft1"

/* -- listings: building, saving -- */

void tree_listing_unref(struct tree_listing *l)
{
	if (l && atomic_fetch_sub(&l->refs, 1) == 1)
		free(l);
}

void tree_listing_unrefp(struct tree_listing **l)
{
	tree_listing_unref(*l);
	*l = NULL;
}

static int entry_compare(const void *a, const void *b)
{
	const struct tree_entry *x = a, *y = b;

	return strcmp(x->name, y->name);
}

static bool name_ok(const char *name, size_t len)
{
	if (len == 0 || len > 255 || memchr(name, '/', len) || memchr(name, '\0', len))
		return false;
	return !(name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')));
}

/* Room for `n` entries and their names in one allocation; entries[0].name is where names may be put. */
static struct tree_listing *listing_alloc(size_t n, size_t name_bytes, char **ret_names)
{
	struct tree_listing *l = malloc(sizeof(*l) + n * sizeof(struct tree_entry) + name_bytes);

	if (!l)
		return NULL;
	atomic_init(&l->refs, 1);
	l->n = n;
	l->entries = (struct tree_entry *)(l + 1);
	*ret_names = (char *)(l->entries + n);
	return l;
}

/* The name in folder `path` of an entry with a full path; NULL when it does not lie there. */
static const char *name_in(const char *full, const char *path, size_t path_len)
{
	if (path_len == 0)
		return full;
	return strncmp(full, path, path_len) == 0 && full[path_len] == '/' ? full + path_len + 1 : NULL;
}

struct tree_listing *tree_listing_of_hub(const struct hub_entries *in, const char *path)
{
	size_t path_len = strlen(path), n = 0, bytes = 0, kept = 0;
	struct tree_listing *l;
	char *at;

	for (size_t i = 0; i < in->n; i++) {
		const char *name = name_in(in->entries[i].path, path, path_len);

		if (!name || !name_ok(name, strlen(name))) {
			log_warn("a name that no filesystem can show is left out: %.200s",
			         in->entries[i].path);
			continue;
		}
		n++;
		bytes += strlen(name) + 1;
	}
	l = listing_alloc(n, bytes, &at);
	if (!l)
		return NULL;
	n = 0;
	for (size_t i = 0; i < in->n; i++) {
		const struct hub_entry *e = &in->entries[i];
		const char *name = name_in(e->path, path, path_len);
		size_t len = name ? strlen(name) : 0;

		if (!name || !name_ok(name, len))
			continue;
		l->entries[n] = (struct tree_entry){.name = memcpy(at, name, len + 1), .kind = e->kind};
		memcpy(l->entries[n].oid, e->oid, sizeof(e->oid));
		if (e->kind == HUB_ENTRY_FILE)
			l->entries[n].key = e->key;
		at += len + 1;
		n++;
	}
	if (n)
		qsort(l->entries, n, sizeof(*l->entries), entry_compare);
	for (size_t i = 0; i < n; i++) {
		if (kept && strcmp(l->entries[kept - 1].name, l->entries[i].name) == 0)
			log_warn("the Hub listed a name twice: %.200s", l->entries[i].name);
		else
			l->entries[kept++] = l->entries[i];
	}
	l->n = kept;
	return l;
}

enum saved_kind { SAVED_GIT, SAVED_LFS, SAVED_DIR, SAVED_OTHER };

static void put_le(uint8_t *out, uint64_t v, int bytes)
{
	for (int i = 0; i < bytes; i++)
		out[i] = (uint8_t)(v >> 8 * i);
}

static uint64_t get_le(const uint8_t *in, int bytes)
{
	uint64_t v = 0;

	for (int i = 0; i < bytes; i++)
		v |= (uint64_t)in[i] << 8 * i;
	return v;
}

/* SAVED_MAGIC, number of entries (4); per entry kind (1), object id (20), of a file its size (8), of an LFS
 * file its SHA-256 (32), length of the name (1), name; at the end a CRC32C of all (4). Numbers are
 * little-endian. */
int tree_listing_encode(const struct tree_listing *l, struct buf *out)
{
	uint8_t head[8] = SAVED_MAGIC, tail[4];
	int r;

	put_le(head + 4, l->n, 4);
	r = buf_add(out, head, sizeof(head));
	for (size_t i = 0; r == 0 && i < l->n; i++) {
		const struct tree_entry *e = &l->entries[i];
		uint8_t rec[1 + 20 + 8 + 32 + 1];
		size_t len = 21;

		memcpy(rec + 1, e->oid, 20);
		rec[0] = e->kind == HUB_ENTRY_DIR ? SAVED_DIR : SAVED_OTHER;
		if (e->kind == HUB_ENTRY_FILE) {
			rec[0] = e->key.alg == HASH_SHA256 ? SAVED_LFS : SAVED_GIT;
			put_le(rec + len, e->key.size, 8);
			len += 8;
			if (rec[0] == SAVED_LFS) {
				memcpy(rec + len, e->key.id, 32);
				len += 32;
			} else if (memcmp(e->key.id, e->oid, 20) != 0) {
				return -EINVAL;
			}
		}
		rec[len++] = (uint8_t)strlen(e->name);
		r = buf_add(out, rec, len);
		if (r == 0)
			r = buf_add(out, e->name, strlen(e->name));
	}
	if (r < 0)
		return r;
	put_le(tail, hash_crc32c(0, out->data, out->len), 4);
	return buf_add(out, tail, sizeof(tail));
}

/* Reads one record at *p (before `end`) into `e`, whose name points into the text and is not terminated. */
static int entry_decode(const uint8_t **p, const uint8_t *end, struct tree_entry *e, size_t *ret_name_len)
{
	const uint8_t *at = *p;
	uint8_t kind;
	size_t len;

	if (end - at < 22)
		return -EINVAL;
	kind = *at++;
	*e = (struct tree_entry){0};
	memcpy(e->oid, at, 20);
	at += 20;
	switch (kind) {
	case SAVED_GIT:
	case SAVED_LFS:
		e->kind = HUB_ENTRY_FILE;
		e->key.alg = kind == SAVED_LFS ? HASH_SHA256 : HASH_GIT_SHA1;
		len = kind == SAVED_LFS ? 32 : 0;
		if ((size_t)(end - at) < 8 + len + 1)
			return -EINVAL;
		e->key.size = get_le(at, 8);
		at += 8;
		memcpy(e->key.id, kind == SAVED_LFS ? at : e->oid, kind == SAVED_LFS ? 32 : 20);
		at += len;
		break;
	case SAVED_DIR:
		e->kind = HUB_ENTRY_DIR;
		break;
	case SAVED_OTHER:
		e->kind = HUB_ENTRY_OTHER;
		break;
	default:
		return -EINVAL;
	}
	len = *at++;
	if ((size_t)(end - at) < len || !name_ok((const char *)at, len))
		return -EINVAL;
	e->name = (const char *)at;
	*ret_name_len = len;
	*p = at + len;
	return 0;
}

struct tree_listing *tree_listing_decode(const char *text, size_t size)
{
	const uint8_t *in = (const uint8_t *)text, *p, *end;
	struct tree_listing *l CLEANUP(tree_listing_unrefp) = NULL;
	size_t n;
	char *at;

	if (size < 12 || memcmp(in, SAVED_MAGIC, 4) != 0 ||
	    hash_crc32c(0, in, size - 4) != (uint32_t)get_le(in + size - 4, 4))
		return NULL;
	n = (size_t)get_le(in + 4, 4);
	p = in + 8;
	end = in + size - 4;
	if (n > (size_t)(end - p) / 22)
		return NULL;
	l = listing_alloc(n, (size_t)(end - p), &at); /* a record is longer than its name and a NUL */
	if (!l)
		return NULL;
	for (size_t i = 0; i < n; i++) {
		size_t len;

		if (entry_decode(&p, end, &l->entries[i], &len) < 0)
			return NULL;
		memcpy(at, l->entries[i].name, len);
		at[len] = '\0';
		l->entries[i].name = at;
		at += len + 1;
		if (i && strcmp(l->entries[i - 1].name, l->entries[i].name) >= 0)
			return NULL;
	}
	if (p != end)
		return NULL;
	return STEAL(l);
}
