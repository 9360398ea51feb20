/* inode: numbers, lookup counts, names.
 *
 * Not for: what a name means (view), or bytes (stage, fetch).
 *
 * Threads: any. The table's lock guards the three hash tables, parents, names and counts; it is never held while
 * anything else is called. What an inode's content is lies under its revision's lock.
 *
 *   identity        nodeid                       st_ino
 *   folder          its path: survives pushes    hash of revision and first path
 *   file            path + content version       hash of revision and first path; another if a living file has it
 *
 *   event                          nodeid        found by name
 *   lookup, same content           same          yes
 *   lookup after a push changed it new           the new one; the old one is detached
 *   our write, our commit          same          yes
 *   our rename                     same          under the new name
 *   unlink, rename over            same          no: detached, until its last reference
 *
 * A revision may be seen by several paths: repo/ and repo@main/. Its files have one inode in all of them, so that there is one
 * page cache. A folder cannot be in two places for the kernel, so the ones after the first are aliases of that.
 *
 * An inode lives while the kernel knows it (lookups), a handle or a child refers to it; all three count in refs.
 */
#define LOG_MODULE "inode"

#include "inode.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

/* The three tables, and the chain of struct inode that each uses. */
enum by { BY_ID, BY_NAME, BY_INO, N_BY };

struct map {
	struct inode **slots;
	size_t n_slots; /* a power of two */
};

struct inode_table {
	struct lock lock;
	/* -- guarded by lock -- */
	struct map map[N_BY];
	size_t n;
	uint64_t next_id;
};

#define FIRST_SLOTS 256

static uint64_t mix(uint64_t x)
{
	x ^= x >> 33;
	x *= 0xff51afd7ed558ccdULL;
	x ^= x >> 33;
	return x;
}

static uint64_t name_hash(const struct inode *parent, const char *name)
{
	return mix(hash_text64(parent ? parent->id : 0, name, strlen(name)));
}

static uint64_t hash_of(const struct inode *i, enum by by)
{
	return by == BY_ID ? mix(i->id) : by == BY_INO ? mix(i->ino) : name_hash(i->parent, i->name);
}

static struct inode **slot_of(struct map *m, uint64_t hash)
{
	return &m->slots[hash & (m->n_slots - 1)];
}

static void chain_add(struct map *m, struct inode *i, enum by by)
{
	struct inode **at = slot_of(m, hash_of(i, by));
	i->next[by] = *at;
	*at = i;
}

static void chain_drop(struct map *m, struct inode *i, enum by by)
{
	struct inode **at = slot_of(m, hash_of(i, by));
	while (*at && *at != i)
		at = &(*at)->next[by];
	if (*at)
		*at = i->next[by];
	i->next[by] = NULL;
}

static int maps_new(struct map *map, size_t n_slots)
{
	for (int by = 0; by < N_BY; by++)
		map[by] = (struct map){calloc(n_slots, sizeof(struct inode *)), n_slots};
	return map[BY_ID].slots && map[BY_NAME].slots && map[BY_INO].slots ? 0 : -ENOMEM;
}

static void maps_free(struct map *map)
{
	for (int by = 0; by < N_BY; by++)
		free(map[by].slots);
}

/* Doubles the tables. Without memory they just stay as they are. */
static void grow_locked(struct inode_table *t)
{
	struct map *old = t->map;
	struct map map[N_BY];
	if (maps_new(map, old->n_slots * 2) < 0) {
		maps_free(map);
		return;
	}
	for (size_t s = 0; s < old->n_slots; s++) {
		for (struct inode *i = old[BY_ID].slots[s], *next; i; i = next) {
			next = i->next[BY_ID];
			chain_add(&map[BY_ID], i, BY_ID);
			chain_add(&map[BY_INO], i, BY_INO);
			if (!i->detached)
				chain_add(&map[BY_NAME], i, BY_NAME);
		}
	}
	maps_free(old);
	memcpy(t->map, map, sizeof(map));
}

int inode_table_new(struct inode_table **ret)
{
	struct inode_table *t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	lock_init(&t->lock, LOCK_INODE_TABLE);
	t->next_id = 1;
	if (maps_new(t->map, FIRST_SLOTS) < 0) {
		inode_table_free(t);
		return -ENOMEM;
	}
	*ret = t;
	return 0;
}

static void inode_free(struct inode *i)
{
	loan_end(i->loan); /* a file that was open to the end: its RELEASE never came */
	fetch_close(i->source);
	free(i->repo);
	free(i->name);
	free(i->place);
	free(i->local);
	free(i);
}

void inode_table_free(struct inode_table *t)
{
	if (!t)
		return;
	for (size_t s = 0; t->map[BY_ID].slots && s < t->map[BY_ID].n_slots; s++)
		for (struct inode *i = t->map[BY_ID].slots[s], *next; i; i = next) {
			next = i->next[BY_ID];
			inode_free(i);
		}
	maps_free(t->map);
	lock_fini(&t->lock);
	free(t);
}

static struct inode *find_name_locked(struct inode_table *t, struct inode *parent, const char *name)
{
	struct inode *i = *slot_of(&t->map[BY_NAME], name_hash(parent, name));
	while (i && (i->parent != parent || strcmp(i->name, name) != 0))
		i = i->next[BY_NAME];
	return i;
}

static void detach_locked(struct inode_table *t, struct inode *i)
{
	if (i->detached)
		return;
	chain_drop(&t->map[BY_NAME], i, BY_NAME);
	i->detached = true;
}

struct inode *inode_find(struct inode_table *t, struct inode *parent, const char *name)
{
	LOCKED(&t->lock);
	struct inode *i = find_name_locked(t, parent, name);
	if (i)
		i->refs++;
	return i;
}

static bool ino_taken_locked(struct inode_table *t, uint64_t ino)
{
	struct inode *i = *slot_of(&t->map[BY_INO], mix(ino));
	while (i && i->ino != ino)
		i = i->next[BY_INO];
	return i != NULL;
}

int inode_make(struct inode_table *t, struct inode *parent, const char *name, const struct inode_spec *spec,
               struct inode **ret)
{
	struct inode *i = calloc(1, sizeof(*i));
	if (!i)
		return -ENOMEM;
	i->name = strdup(name);
	i->repo = spec->repo ? malloc(sizeof(*i->repo)) : NULL;
	if (!i->name || (spec->repo && !i->repo)) {
		inode_free(i);
		return -ENOMEM;
	}
	if (spec->repo)
		*i->repo = *spec->repo;
	i->kind = spec->kind;
	i->rev = spec->rev;
	i->refs = 1;

	LOCKED(&t->lock);
	if (t->n >= t->map[BY_ID].n_slots)
		grow_locked(t);
	struct inode *former = find_name_locked(t, parent, name);
	if (former && spec->shared && former->kind == spec->kind && former->rev == spec->rev) {
		former->refs++;
		inode_free(i);
		*ret = former;
		return 0;
	}
	if (former)
		detach_locked(t, former);
	/* 0 is no st_ino, and 1 is the root's nodeid, which libfuse's readdir shows for "..". */
	for (i->ino = spec->ino; i->ino < 2 || ino_taken_locked(t, i->ino);)
		i->ino = mix(i->ino + 0x9e3779b97f4a7c15ULL);
	i->id = t->next_id++;
	i->parent = parent;
	if (parent)
		parent->refs++;
	i->real = spec->real;
	if (i->real) {
		i->real->refs++;
		i->next_alias = i->real->aliases;
		i->real->aliases = i;
	}
	chain_add(&t->map[BY_ID], i, BY_ID);
	chain_add(&t->map[BY_NAME], i, BY_NAME);
	chain_add(&t->map[BY_INO], i, BY_INO);
	t->n++;
	*ret = i;
	return 0;
}

struct inode *inode_get(struct inode_table *t, uint64_t id)
{
	LOCKED(&t->lock);
	struct inode *i = *slot_of(&t->map[BY_ID], mix(id));
	while (i && i->id != id)
		i = i->next[BY_ID];
	if (i)
		i->refs++;
	return i;
}

struct inode *inode_ref(struct inode_table *t, struct inode *i)
{
	LOCKED(&t->lock);
	i->refs++;
	return i;
}

static void drop_alias_locked(struct inode *i)
{
	struct inode **at = i->real ? &i->real->aliases : NULL;
	while (at && *at != i)
		at = &(*at)->next_alias;
	if (at)
		*at = i->next_alias;
}

size_t inode_aliases(struct inode_table *t, struct inode *real, uint64_t *ids, size_t max)
{
	LOCKED(&t->lock);
	size_t n = 0;
	for (struct inode *i = real->aliases; i && n < max; i = i->next_alias)
		ids[n++] = i->id;
	return n;
}

void inode_unref(struct inode_table *t, struct inode *i, uint64_t n)
{
	while (i) {
		struct inode *parent;
		{
			LOCKED(&t->lock);
			assert(i->refs >= n);
			i->refs -= n;
			if (i->refs > 0)
				return;
			detach_locked(t, i);
			chain_drop(&t->map[BY_ID], i, BY_ID);
			chain_drop(&t->map[BY_INO], i, BY_INO);
			t->n--;
			parent = i->parent;
			drop_alias_locked(i);
		}
		inode_unref(t, i->real, 1); /* which is no alias itself */
		inode_free(i);
		i = parent;
		n = 1;
	}
}

void inode_detach(struct inode_table *t, struct inode *i)
{
	LOCKED(&t->lock);
	detach_locked(t, i);
}

bool inode_is_detached(struct inode_table *t, struct inode *i)
{
	LOCKED(&t->lock);
	return i->detached;
}

int inode_move(struct inode_table *t, struct inode *i, struct inode *parent, const char *name)
{
	char *copy = strdup(name);
	if (!copy)
		return -ENOMEM;
	struct inode *former_parent;
	{
		LOCKED(&t->lock);
		struct inode *former = find_name_locked(t, parent, name);
		if (former == i) {
			free(copy);
			return 0;
		}
		if (former)
			detach_locked(t, former);
		detach_locked(t, i);
		former_parent = i->parent;
		parent->refs++;
		i->parent = parent;
		free(i->name);
		i->name = copy;
		i->detached = false;
		chain_add(&t->map[BY_NAME], i, BY_NAME);
	}
	inode_unref(t, former_parent, 1);
	return 0;
}

int inode_path(struct inode_table *t, struct inode *i, char **ret)
{
	LOCKED(&t->lock);
	/* Components from the leaf upwards, written from the end of a buffer that is long enough. */
	size_t len = 0;
	struct inode *at = i;
	for (; at->parent && at->parent->rev == at->rev && at->rev; at = at->parent) {
		if (at->detached)
			return -ENOENT;
		len += strlen(at->name) + 1;
	}
	if (at->detached)
		return -ENOENT;
	char *text = malloc(len + 1);
	if (!text)
		return -ENOMEM;
	char *end = text + len;
	*end = '\0';
	if (len > 0)
		*--end = '\0';
	for (at = i; at->parent && at->parent->rev == at->rev && at->rev; at = at->parent) {
		size_t n = strlen(at->name);
		end -= n;
		memcpy(end, at->name, n);
		if (end > text)
			*--end = '/';
	}
	*ret = text;
	return 0;
}

int inode_where(struct inode_table *t, struct inode *i, uint64_t *ret_parent, char **ret_name)
{
	LOCKED(&t->lock);
	char *name = strdup(i->name);
	if (!name)
		return -ENOMEM;
	*ret_parent = i->parent ? i->parent->id : 0;
	*ret_name = name;
	return 0;
}

void inode_each(struct inode_table *t, struct rev *rev, inode_each_fn each, void *arg)
{
	LOCKED(&t->lock);
	for (size_t s = 0; s < t->map[BY_ID].n_slots; s++)
		for (struct inode *i = t->map[BY_ID].slots[s]; i; i = i->next[BY_ID])
			if (i->rev == rev)
				each(arg, i);
}

size_t inode_count(struct inode_table *t)
{
	LOCKED(&t->lock);
	return t->n;
}
