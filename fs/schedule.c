/* schedule: WHEN a commit of one branch happens: quiet periods, fsyncs that wait for each other, explicit
 * commits, tries after failures. design.md 3.2 is its table.
 *
 * Not for what a commit holds (commit) nor for who waits for it (publish). Pure: the publisher's lock
 * serialises it.
 *
 * What happens between two commits is a CHANGE SET. In it every changed name has an item, with the number
 * of times it was rewritten; a name rewritten a third time is HOT: it no longer restarts the quiet period,
 * and holds back as if it had been open since the first. Every node that somebody writes to has an item as
 * well, which outlives the set as long as it has a writer. The quiet period starts at the last change of a
 * name that is not hot.
 *
 *     IDLE --change--> DIRTY --quiet, fsync, ask--> RUNNING --ok--> IDLE, or DIRTY by what came meanwhile
 *                        ^-----------failed: not before backoff------'
 *
 * A failure that no repetition cures leaves the set HELD until something changes, an fsync comes or
 * somebody asks. */
#define LOG_MODULE "schedule"

#include "schedule.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "hash.h"

#define HOLD_BYTES ((uint64_t)64 << 20) /* a writer holds back again from each of these */
#define HOT_REWRITES 3
#define QUIET_MAX_MS 60000              /* of the part that depends on how long it took */
#define DELETIONS_FACTOR 10
#define GROW_MS 1000                    /* a file that grew so lately is still being written */
#define SYNC_WAIT_MS 5000               /* an fsync waits that long for others */
#define BRAKE_WINDOW_MS 3600000
#define BRAKE_PAUSE_MS 60000
#define BACKOFF_FIRST_MS 1000
#define BACKOFF_WAITED_MAX_MS 8000      /* while somebody waits */
#define BACKOFF_MAX_MS 300000
#define QUOTA_MS 600000                 /* a quota is used up and the Hub did not say until when */
#define RETRY_MAX_MS 3600000            /* whatever the Hub says: it may be told by a broken clock */
#define ITEMS_MAX ((size_t)1 << 17)     /* of a table; what does not fit is just not followed */
#define NEVER INT64_MAX

/* A name or a node. */
struct item {
	uint64_t key;
	/* a name */
	unsigned rewrites;
	int64_t first_ms;  /* of its first rewriting */
	int64_t last_ms;   /* when it restarted the quiet period */
	/* a node */
	unsigned writers;
	unsigned syncs;    /* fsyncs that wait */
	int64_t opened_ms; /* by the first of its writers */
	int64_t hold_ms;   /* holds back from here */
	int64_t grew_ms;
	uint64_t bytes;    /* since hold_ms */
	uint64_t name;     /* key of its name; 0: not told in this set */
	bool changed;      /* by a writer that went while others stayed */
	bool left_out;     /* a commit began while it had a writer */
	bool closing;      /* it settled before its writer went, and nothing was written since */
	bool created;      /* its new name counts as a rewriting already, its next close does not */
};

struct table {
	struct item *items;
	size_t n, cap;
	uint32_t *slots; /* index + 1; 0: free */
	size_t n_slots;  /* a power of two */
};

struct schedule {
	struct schedule_opts opts;
	bool running;
	enum schedule_reason reason; /* of the commit under way */
	/* the change set */
	bool dirty;
	bool only_deletions;
	int64_t dirty_ms;            /* when it began */
	int64_t anchor_ms;           /* commit_interval is counted from here; 0: not yet */
	int64_t last_ms;             /* the quiet period's start */
	int64_t span_from, span_to;  /* in which its files were being written; from > to: none yet */
	struct table names, nodes;
	/* those who wait */
	unsigned syncs, asks;
	int64_t sync_since_ms;       /* the first of the fresh ones; waiting for others counts from here */
	int64_t sync_not_before, ask_not_before;
	/* after failures */
	unsigned failures;
	bool held;
	bool unsure;
	bool transaction;            /* holds everything back but who asks */
	bool deletions_run;          /* the set under way was one of deletions alone */
	int64_t not_before;
};

/* -- tables -- */

static void table_fini(struct table *t)
{
	free(t->items);
	free(t->slots);
	*t = (struct table){0};
}

static uint32_t *table_slot(const struct table *t, uint64_t key)
{
	size_t mask = t->n_slots - 1;
	size_t at = (size_t)(key * 0x9e3779b97f4a7c15u >> 32) & mask;

	while (t->slots[at] && t->items[t->slots[at] - 1].key != key)
		at = (at + 1) & mask;
	return &t->slots[at];
}

static struct item *table_find(const struct table *t, uint64_t key)
{
	uint32_t *slot;

	if (!t->n_slots)
		return NULL;
	slot = table_slot(t, key);
	return *slot ? &t->items[*slot - 1] : NULL;
}

static void table_index(struct table *t)
{
	memset(t->slots, 0, t->n_slots * sizeof(*t->slots));
	for (size_t i = 0; i < t->n; i++)
		*table_slot(t, t->items[i].key) = (uint32_t)i + 1;
}

/* Forgets all but the nodes that somebody writes to or waits for. */
static void table_purge(struct table *t)
{
	size_t kept = 0;

	if (!t->n)
		return;
	for (size_t i = 0; i < t->n; i++) {
		if (!t->items[i].writers && !t->items[i].syncs)
			continue;
		t->items[kept] = t->items[i];
		t->items[kept].name = 0;
		t->items[kept].created = false;
		kept++;
	}
	t->n = kept;
	table_index(t);
}

/* Room for one more item: 0 or -errno, then the table is as it was. */
static int table_grow(struct table *t)
{
	size_t cap = t->cap ? t->cap * 2 : 32;
	struct item *items;
	uint32_t *slots;

	if (t->n >= ITEMS_MAX)
		table_purge(t);
	if (t->n < t->cap)
		return 0;
	if (t->n >= ITEMS_MAX)
		return -ENOSPC;
	slots = calloc(cap * 2, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	items = realloc(t->items, cap * sizeof(*items));
	if (!items) {
		free(slots);
		return -ENOMEM;
	}
	free(t->slots);
	t->slots = slots;
	t->n_slots = cap * 2;
	t->items = items;
	t->cap = cap;
	table_index(t);
	return 0;
}

/* NULL when there is no room: the caller does without. */
static struct item *table_add(struct table *t, uint64_t key)
{
	struct item *it = table_find(t, key);

	if (it)
		return it;
	if (table_grow(t) < 0)
		return NULL;
	it = &t->items[t->n];
	*it = (struct item){.key = key};
	*table_slot(t, key) = (uint32_t)++t->n;
	return it;
}

/* -- life -- */

int schedule_new(const struct schedule_opts *opts, struct schedule **ret)
{
	struct schedule *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->opts = *opts;
	s->span_from = NEVER;
	s->only_deletions = true;
	*ret = s;
	return 0;
}

void schedule_free(struct schedule *s)
{
	if (!s)
		return;
	table_fini(&s->names);
	table_fini(&s->nodes);
	free(s);
}

void schedule_freep(struct schedule **s)
{
	schedule_free(*s);
}

/* -- what happened -- */

static uint64_t name_key(const char *name)
{
	uint64_t key = hash_text64(0, name, strlen(name));

	return key ? key : 1;
}

/* Stands for the name of a file whose name was not told in this set. */
static uint64_t node_name_key(uint64_t node)
{
	return hash_text64(node, "node", 4) | 1;
}

static bool is_hot(const struct item *name)
{
	return name->rewrites >= HOT_REWRITES;
}

/* The quiet period starts at the last change of what is not hot. */
static void find_last(struct schedule *s)
{
	s->last_ms = 0;
	for (size_t i = 0; i < s->names.n; i++) {
		if (!is_hot(&s->names.items[i]))
			s->last_ms = MAX(s->last_ms, s->names.items[i].last_ms);
	}
}

/* Takes back what a name did to the quiet period. */
static void unrestart(struct schedule *s, struct item *name)
{
	bool was_last = name->last_ms == s->last_ms;

	name->last_ms = 0;
	if (was_last)
		find_last(s);
}

/* `name` changed; rewritten: that makes it new content. Returns false when it is hot. */
static bool touch_name(struct schedule *s, int64_t now, uint64_t key, bool rewritten)
{
	struct item *name = table_add(&s->names, key);

	if (!name) {
		s->last_ms = now;
		return true;
	}
	if (rewritten && name->rewrites++ == 0)
		name->first_ms = now;
	if (is_hot(name)) {
		unrestart(s, name);
		return false;
	}
	name->last_ms = now;
	s->last_ms = now;
	return true;
}

static void touch_set(struct schedule *s, int64_t now, bool deletion)
{
	if (!s->dirty)
		s->dirty_ms = now;
	if (!s->anchor_ms)
		s->anchor_ms = now;
	s->dirty = true;
	s->held = false;
	if (!deletion)
		s->only_deletions = false;
}

void schedule_changed(struct schedule *s, int64_t now, enum schedule_change what, const char *name,
                      uint64_t node)
{
	struct item *it = node && what != SCHEDULE_DELETED ? table_add(&s->nodes, node) : NULL;
	uint64_t key = name_key(name);
	struct item *old;
	bool cold;

	touch_set(s, now, what == SCHEDULE_DELETED);
	cold = touch_name(s, now, key, what != SCHEDULE_DELETED);
	if (!it)
		return;
	/* What went on under the old name was for the new one: a hot name stays hot however its successors
	 * are called. */
	if (!cold && it->name && it->name != key) {
		old = table_find(&s->names, it->name);
		if (old && !is_hot(old))
			unrestart(s, old);
	}
	it->name = key;
	it->created = what == SCHEDULE_CREATED || it->writers;
}

void schedule_opened(struct schedule *s, int64_t now, uint64_t node)
{
	struct item *it = table_add(&s->nodes, node);

	if (!it)
		return;
	if (it->writers++ == 0)
		it->opened_ms = now;
	it->hold_ms = now;
	it->grew_ms = now;
	it->bytes = 0;
}

void schedule_wrote(struct schedule *s, int64_t now, uint64_t node, uint64_t bytes)
{
	struct item *it = table_find(&s->nodes, node);

	if (s->opts.interval_ms)
		touch_set(s, now, false); /* what is appended to settles while it is open */
	if (!it)
		return;
	it->closing = false;
	it->grew_ms = now;
	it->bytes += bytes;
	if (it->bytes >= HOLD_BYTES) {
		it->bytes %= HOLD_BYTES;
		it->hold_ms = now;
	}
}

/* Until when the writers of a node hold back. */
static int64_t hold_until(const struct schedule *s, const struct item *node)
{
	if (node->closing)
		return 0;

	const struct item *name = table_find(&s->names, node->name ? node->name : node_name_key(node->key));
	int64_t from = node->hold_ms;

	/* Each open of a hot name would hold back anew; only what it really writes may. */
	if (name && is_hot(name) && node->hold_ms == node->opened_ms)
		from = name->first_ms;
	return from + s->opts.open_wait_ms;
}

/* A file settled that was open since `opened`. */
static void settled(struct schedule *s, int64_t now, uint64_t key, bool rewritten, bool held_back, int64_t opened)
{
	touch_set(s, now, false);
	if (touch_name(s, now, key, rewritten) && held_back) {
		s->span_from = MIN(s->span_from, opened);
		s->span_to = now;
	}
}

void schedule_closed(struct schedule *s, int64_t now, uint64_t node, bool changed)
{
	struct item *it = table_find(&s->nodes, node);
	bool created, held_back;

	if (!it) {
		if (changed)
			settled(s, now, node_name_key(node), true, true, now);
		return;
	}
	held_back = hold_until(s, it) > now;
	created = it->created;
	if (it->writers)
		it->writers--;
	it->changed = it->changed || (changed && !it->closing);
	if (it->writers)
		return; /* it settles with the last of them */
	changed = it->changed || it->left_out;
	it->changed = it->left_out = it->closing = false;
	if (!changed)
		return;
	it->created = false;
	settled(s, now, it->name ? it->name : node_name_key(node), !created, held_back, it->opened_ms);
}

void schedule_closing(struct schedule *s, int64_t now, uint64_t node)
{
	struct item *it = table_find(&s->nodes, node);
	bool created, held_back;

	if (!it || it->closing)
		return;
	held_back = hold_until(s, it) > now;
	created = it->created;
	it->changed = it->left_out = it->created = false;
	it->closing = true;
	settled(s, now, it->name ? it->name : node_name_key(node), !created, held_back, it->opened_ms);
}

void schedule_fsync(struct schedule *s, int64_t now, uint64_t node)
{
	struct item *it = node ? table_add(&s->nodes, node) : NULL;

	if (it)
		it->syncs++;
	if (s->syncs++ == 0 || s->sync_not_before > now)
		s->sync_since_ms = now;
	s->sync_not_before = now;
}

void schedule_unsync(struct schedule *s, uint64_t node)
{
	struct item *it = node ? table_find(&s->nodes, node) : NULL;

	if (it && it->syncs)
		it->syncs--;
	if (s->syncs)
		s->syncs--;
}

void schedule_ask(struct schedule *s, int64_t now)
{
	s->asks++;
	s->ask_not_before = now;
}

void schedule_unask(struct schedule *s)
{
	if (s->asks)
		s->asks--;
}

void schedule_unsure(struct schedule *s, int64_t now)
{
	s->unsure = true;
	s->not_before = MAX(s->not_before, now);
}

void schedule_hold(struct schedule *s, bool held)
{
	s->transaction = held;
}

/* -- what to do -- */

/* Others that still write are waited for, so that their fsync can be in the same commit. */
static int64_t when_sync(const struct schedule *s)
{
	int64_t when = s->sync_not_before;
	int64_t grown = 0;

	for (size_t i = 0; i < s->nodes.n; i++) {
		const struct item *it = &s->nodes.items[i];

		if (it->writers && !it->syncs)
			grown = MAX(grown, it->grew_ms + GROW_MS);
	}
	return MAX(when, MIN(grown, s->sync_since_ms + SYNC_WAIT_MS));
}

static int64_t when_brake(const struct schedule *s, int64_t now)
{
	struct schedule_brake *b = s->opts.brake;
	unsigned n = atomic_load(&b->n);

	if (n < SCHEDULE_BRAKE_COMMITS || b->at_ms[n % SCHEDULE_BRAKE_COMMITS] <= now - BRAKE_WINDOW_MS)
		return 0;
	return b->at_ms[(n - 1) % SCHEDULE_BRAKE_COMMITS] + BRAKE_PAUSE_MS;
}

static int64_t when_quiet(const struct schedule *s)
{
	int64_t span = s->span_from < s->span_to ? s->span_to - s->span_from : 0;
	int64_t quiet = MAX(s->opts.delay_ms, MIN(span / 4, QUIET_MAX_MS));
	int64_t when;

	if (s->only_deletions)
		quiet *= DELETIONS_FACTOR;
	when = s->last_ms + quiet;
	for (size_t i = 0; i < s->nodes.n; i++) {
		if (s->nodes.items[i].writers)
			when = MAX(when, hold_until(s, &s->nodes.items[i]));
	}
	for (size_t i = 0; i < s->names.n; i++) {
		if (is_hot(&s->names.items[i]))
			when = MAX(when, s->names.items[i].first_ms + s->opts.open_wait_ms);
	}
	return when;
}

/* The first beat of the interval after the change set began. */
static int64_t when_interval(const struct schedule *s)
{
	int64_t beats = (s->dirty_ms - s->anchor_ms) / s->opts.interval_ms + 1;

	return s->anchor_ms + beats * s->opts.interval_ms;
}

static int64_t when_by_itself(const struct schedule *s, int64_t now)
{
	int64_t when;

	if (s->held)
		return NEVER;
	when = s->opts.interval_ms ? when_interval(s) : when_quiet(s);
	when = MAX(when, when_brake(s, now));
	return MAX(when, s->not_before);
}

enum schedule_verdict schedule_next(struct schedule *s, int64_t now, enum schedule_reason *ret_reason,
                                    int64_t *ret_wake_ms)
{
	int64_t when[] = {
		[SCHEDULE_ASKED] = NEVER, [SCHEDULE_SYNC] = NEVER, [SCHEDULE_RECOVER] = NEVER,
		[SCHEDULE_QUIET] = NEVER,
	};
	int64_t wake = NEVER;

	if (s->running)
		return SCHEDULE_NOTHING;
	if (s->asks)
		when[SCHEDULE_ASKED] = s->ask_not_before;
	if (s->syncs && !s->transaction)
		when[SCHEDULE_SYNC] = when_sync(s);
	if (s->unsure)
		when[SCHEDULE_RECOVER] = s->not_before;
	if (s->dirty && !s->transaction && s->opts.mode == SCHEDULE_CLOSE)
		when[SCHEDULE_QUIET] = when_by_itself(s, now);
	for (size_t i = 0; i < ARRAY_LEN(when); i++) {
		if (when[i] <= now) {
			*ret_reason = (enum schedule_reason)i;
			return SCHEDULE_COMMIT;
		}
		wake = MIN(wake, when[i]);
	}
	if (wake == NEVER)
		return SCHEDULE_NOTHING;
	*ret_wake_ms = wake;
	return SCHEDULE_WAIT;
}

void schedule_joined(struct schedule *s)
{
	s->syncs = 0;
	for (size_t i = 0; i < s->nodes.n; i++)
		s->nodes.items[i].syncs = 0;
}

void schedule_began(struct schedule *s, enum schedule_reason reason)
{
	assert(!s->running);
	s->running = true;
	s->reason = reason;
	if (reason == SCHEDULE_RECOVER)
		return;
	if (reason == SCHEDULE_ASKED)
		schedule_unask(s);
	schedule_joined(s);
	s->deletions_run = s->dirty && s->only_deletions;
	s->dirty = false;
	s->only_deletions = true;
	s->span_from = NEVER;
	s->span_to = 0;
	table_purge(&s->names);
	table_purge(&s->nodes);
	for (size_t i = 0; i < s->nodes.n; i++)
		s->nodes.items[i].left_out = s->nodes.items[i].writers > 0 && !s->nodes.items[i].closing;
}

bool schedule_transient(int err)
{
	return err == -EIO || err == -ETIMEDOUT || err == -EBUSY;
}

/* Does it mend itself, so that it is tried again with nobody waiting? */
static bool is_retried(int err)
{
	return schedule_transient(err) || err == -ENETDOWN || err == -EDQUOT || err == -ENOMEM ||
	       err == -ENOSPC;
}

static int64_t backoff(const struct schedule *s, const struct schedule_outcome *o, int64_t max)
{
	unsigned doublings = MIN(s->failures - 1, 20u);

	if (o->retry_s >= 0)
		return MIN(MAX((int64_t)o->retry_s * 1000, BACKOFF_FIRST_MS), RETRY_MAX_MS);
	if (o->err == -EDQUOT)
		return QUOTA_MS;
	return MIN((int64_t)BACKOFF_FIRST_MS << doublings, max);
}

static void brake_count(struct schedule_brake *b, int64_t now)
{
	atomic_store(&b->at_ms[atomic_load(&b->n) % SCHEDULE_BRAKE_COMMITS], now);
	atomic_fetch_add(&b->n, 1);
}

void schedule_done(struct schedule *s, int64_t now, const struct schedule_outcome *o)
{
	int64_t again;

	assert(s->running);
	s->running = false;
	s->unsure = o->unsure;
	if (o->sent && s->reason == SCHEDULE_QUIET)
		brake_count(s->opts.brake, now);
	if (o->err == 0) {
		s->failures = 0;
		s->not_before = 0;
		return;
	}
	s->failures++;
	s->not_before = now + backoff(s, o, BACKOFF_MAX_MS);
	if (s->reason == SCHEDULE_RECOVER)
		return;
	s->held = !s->dirty && !is_retried(o->err);
	s->only_deletions = s->only_deletions && s->deletions_run;
	s->dirty = true;
	again = now + backoff(s, o, BACKOFF_WAITED_MAX_MS);
	if (o->syncs && !s->syncs) {
		s->sync_not_before = again;
		s->sync_since_ms = now - SYNC_WAIT_MS;
	}
	s->syncs += o->syncs;
	if (o->asked && s->asks++ == 0)
		s->ask_not_before = again;
}
