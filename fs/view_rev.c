/* view_rev: revisions of the mount: their base, their stage and publisher, and what stands in the way of an answer.
 *
 * Threads: any; view_satisfy, view_open_stage's callers at start and view_reap belong to workers. A struct rev is never
 * freed before the view. Its base moves here (view_use) and after our own commit (view_settle). */
#define LOG_MODULE "view"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "log.h"
#include "view_internal.h"

#define SYNC_AFTER_MS 3000 /* a program that writes a file in pieces is done by then */
#define NS_MAX 1024 /* namespaces that are remembered; then one makes room for another */

void view_need_fini(struct view_need *need)
{
	free(need->text);
	fetch_close(need->source);
	*need = (struct view_need){0};
}

int view_need_name(struct view_need *need, int what, const struct repo_id *repo, const char *text)
{
	view_need_fini(need);
	need->text = strdup(text);
	if (!need->text)
		return -ENOMEM;
	need->what = what;
	need->repo = *repo;
	return -EAGAIN;
}

int view_need_list(struct view_need *need, const struct repo_id *repo, const char *commit, const char *path)
{
	int r = view_need_name(need, VIEW_NEED_LIST, repo, path);
	memcpy(need->commit, commit, sizeof(need->commit));
	return r;
}

static int note_namespace(struct view *v, const char *name, bool exists)
{
	LOCKED(&v->lock);
	for (size_t i = 0; i < v->n_ns; i++) {
		if (strcmp(v->ns[i].name, name) != 0)
			continue;
		v->ns[i].exists = exists;
		v->ns[i].asked_ms = util_now_ms();
		return 0;
	}
	char *copy = strdup(name);
	if (!copy)
		return -ENOMEM;
	if (v->n_ns == NS_MAX) {
		struct view_ns *old = &v->ns[hash_text64(0, name, strlen(name)) % NS_MAX];
		free(old->name);
		*old = (struct view_ns){copy, exists, util_now_ms()};
		return 0;
	}
	struct view_ns *ns = reallocarray(v->ns, v->n_ns + 1, sizeof(*ns));
	if (!ns) {
		free(copy);
		return -ENOMEM;
	}
	v->ns = ns;
	ns[v->n_ns++] = (struct view_ns){copy, exists, util_now_ms()};
	return 0;
}

/* May the token write there? Asked once per repository; without an answer the commit will tell. */
static int ask_access(struct view *v, const struct repo_id *repo)
{
	struct hub_error err = {0};
	int may = hub_may_write(v->env.hub, repo, &err);
	if (may < 0) {
		if (may == -ECANCELED)
			return may;
		may = 1;
	}
	char text[REPO_TEXT_MAX];
	repo_text(repo, text);
	bool pr = v->env.opts->pr; /* reading is enough to propose */
	if (may == 0 && !pr)
		log_warn("%s: the token may not write there, so it is read-only: use a token with write access", text);
	LOCKED(&v->lock);
	for (size_t i = 0; i < v->n_revs; i++) {
		struct rev *rev = v->revs[i];
		if (!repo_equal(&rev->repo, repo))
			continue;
		LOCKED(&rev->lock);
		rev->may_write = may || (pr && rev->kind == TREE_BRANCH);
	}
	return 0;
}

int view_satisfy(struct view *v, const struct view_need *need)
{
	struct hub_error err = {0};
	struct tree_head head;
	struct tree_repo repo;
	struct tree_refs *refs CLEANUP(tree_refs_unrefp) = NULL;
	struct tree_listing *list CLEANUP(tree_listing_unrefp) = NULL;
	int r;

	switch (need->what) {
	case VIEW_NEED_HEAD:
		return tree_head(v->env.tree, &need->repo, need->text, true, &head, &err);
	case VIEW_NEED_LIST:
		return tree_list(v->env.tree, &need->repo, need->commit, need->text, true, &list, &err);
	case VIEW_NEED_REFS:
		return tree_refs(v->env.tree, &need->repo, true, &refs, &err);
	case VIEW_NEED_REPO:
		return tree_repo(v->env.tree, &need->repo, true, &repo, &err);
	case VIEW_NEED_NS:
		r = hub_namespace_exists(v->env.hub, need->text, &err);
		return r < 0 ? r : note_namespace(v, need->text, r == 1);
	case VIEW_NEED_ACCESS:
		return ask_access(v, &need->repo);
	case VIEW_NEED_MAKE_REPO:
	case VIEW_NEED_MAKE_BRANCH:
		return view_make(v, need);
	case VIEW_NEED_NONE:
	case VIEW_NEED_BLOCKS:
	case VIEW_NEED_PUBLISH:
	case VIEW_NEED_CLOSED:
		break;
	}
	assert(!"this need belongs to somebody else");
	return -EINVAL;
}

const char *view_ref(const struct rev *rev)
{
	return rev->ref[0] ? rev->ref : rev->name;
}

int view_use(struct view *v, struct rev *rev, struct view_need *need)
{
	struct tree_head head;
	/* Under the lock, so that a head from before a commit of ours settles is not put in the place of the new one. */
	LOCKED(&rev->lock);
	int r = tree_head(v->env.tree, &rev->repo, view_ref(rev), false, &head, NULL);
	if (r == -EAGAIN)
		return view_need_name(need, VIEW_NEED_HEAD, &rev->repo, view_ref(rev));
	if (r < 0)
		return r;
	if (strcmp(rev->commit, head.commit) != 0) {
		memcpy(rev->commit, head.commit, sizeof(rev->commit));
		rev->date_s = head.date_s;
	}
	return 0;
}

static bool kind_is_writable(enum tree_rev_kind kind)
{
	return kind == TREE_BRANCH || kind == TREE_PR;
}

int view_rev_get(struct view *v, const struct tree_repo *repo, const char *name, const char *sub,
                 const struct tree_head *head, struct rev **ret)
{
	LOCKED(&v->lock);
	for (size_t i = 0; i < v->n_revs; i++) {
		struct rev *rev = v->revs[i];
		if (repo_equal(&rev->repo, &repo->id) && strcmp(rev->name, name) == 0 && strcmp(rev->sub, sub) == 0) {
			*ret = rev;
			return 0;
		}
	}
	struct rev **revs = reallocarray(v->revs, v->n_revs + 1, sizeof(struct rev *));
	if (!revs)
		return -ENOMEM;
	v->revs = revs;
	struct rev *rev = calloc(1, sizeof(*rev));
	if (!rev)
		return -ENOMEM;
	rev->name = strdup(name);
	rev->sub = strdup(sub);
	if (!rev->name || !rev->sub) {
		free(rev->name);
		free(rev->sub);
		free(rev);
		return -ENOMEM;
	}
	rev->view = v;
	rev->repo = repo->id;
	memcpy(rev->internal_id, repo->internal_id, sizeof(rev->internal_id));
	rev->kind = head->kind;
	rev->writable = kind_is_writable(head->kind) && !v->env.opts->read_only;
	memcpy(rev->commit, head->commit, sizeof(rev->commit));
	rev->date_s = head->date_s;
	rev->may_write = -1;
	lock_init(&rev->lock, LOCK_INODE);
	v->revs[v->n_revs++] = rev;
	*ret = rev;
	return 0;
}

int view_each_rev(struct view *v, view_rev_fn each, void *arg)
{
	struct rev **revs AUTO_FREE = NULL;
	size_t n;
	{
		LOCKED(&v->lock);
		n = v->n_revs;
		revs = malloc((n + 1) * sizeof(struct rev *));
		if (!revs)
			return -ENOMEM;
		for (size_t i = 0; i < n; i++)
			revs[i] = v->revs[i];
	}
	for (size_t i = 0; i < n; i++) {
		int r = each(arg, revs[i]);
		if (r)
			return r;
	}
	return 0;
}

/* -- stage and publisher -- */

static bool is_staged(struct rev *rev)
{
	LOCKED(&rev->lock);
	return rev->publish != NULL;
}

int view_open_stage(struct view *v, struct rev *rev, bool create)
{
	if (is_staged(rev))
		return 0;
	LOCKED(&v->opening);
	if (is_staged(rev))
		return 0;
	struct stage_ident ident = {
		.endpoint = hub_endpoint(v->env.hub),
		.repo = rev->repo,
		.rev = rev->name,
		.internal_id = rev->internal_id,
	};
	struct stage *stage = NULL;
	int r = stage_open(v->env.opts->staging_dir, &ident, create, &stage);
	if (r < 0)
		return r;
	char *target AUTO_FREE = NULL;
	r = stage_note_get(stage, STAGE_NOTE_TARGET, &target);
	if (r == 0 && *target) {
		LOCKED(&rev->lock); /* what is staged lies over that pull request */
		snprintf(rev->ref, sizeof(rev->ref), "%s", target);
	}
	struct publish *publish = NULL;
	if (r == 0)
		r = v->env.staged(v->env.arg, rev, stage, &publish);
	if (r < 0) {
		stage_close(stage);
		return r;
	}
	LOCKED(&rev->lock);
	rev->stage = stage;
	rev->publish = publish;
	stage_locals_free(STEAL(rev->locals)); /* the stage has them */
	int64_t date_s;
	if (stage_date_get(stage, rev->commit, &date_s) == 0)
		rev->date_s = date_s; /* our own commits change no times */
	return 0;
}

struct publish *view_hold(struct rev *rev)
{
	LOCKED(&rev->lock);
	if (rev->publish)
		rev->users++;
	return rev->publish;
}

void view_release(struct rev *rev)
{
	LOCKED(&rev->lock);
	assert(rev->users > 0);
	rev->users--;
}

/* A later stage may use the number again. */
static void forget_node(void *arg, struct inode *i)
{
	(void)arg;
	assert(!i->pinned);
	i->snode = 0;
}

/* Nothing staged, nobody uses it: takes it out, so that nobody can come any more. */
static bool take_idle(struct rev *rev, struct stage **ret_stage, struct publish **ret_publish)
{
	LOCKED(&rev->lock);
	if (!rev->publish || rev->users > 0 || !stage_empty(rev->stage))
		return false;
	struct stage_locals *locals = stage_locals_keep(rev->stage);
	if (!locals)
		return false;
	inode_each(rev->view->table, rev, forget_node, NULL);
	rev->locals = locals;
	*ret_stage = STEAL(rev->stage);
	*ret_publish = STEAL(rev->publish);
	return true;
}

static int reap_one(void *arg, struct rev *rev)
{
	struct view *v = arg;
	struct stage *stage;
	struct publish *publish;
	if (view_hold(rev)) {
		/* What fails is logged there and tried again. */
		int r = stage_sync_behind(rev->stage, SYNC_AFTER_MS);
		view_release(rev);
		if (r < 0)
			return 0;
	}
	LOCKED(&v->opening);
	if (!take_idle(rev, &stage, &publish))
		return 0;
	if (v->env.unstaged(v->env.arg, publish)) {
		stage_close(stage);
		return 0;
	}
	LOCKED(&rev->lock); /* somebody waits for it: it stays */
	rev->stage = stage;
	rev->publish = publish;
	stage_locals_free(STEAL(rev->locals));
	return 0;
}

void view_reap(struct view *v)
{
	if (view_each_rev(v, reap_one, v) < 0)
		log_debug("no memory to look for idle branches");
}

/* -- start -- */

struct recovery {
	struct view *view;
	const struct repo_source *source;
};

static int recover_one(void *arg, const struct repo_id *id, const char *name)
{
	struct recovery *rec = arg;
	struct view *v = rec->view;
	struct hub_error err = {0};
	struct tree_repo repo;
	struct tree_head head;
	struct rev *rev;
	char text[REPO_TEXT_MAX];

	bool one = rec->source->kind == REPO_SOURCE_REPO && !rec->source->all_revisions;
	if (one && strcmp(rec->source->rev ? rec->source->rev : "main", name) != 0)
		return 0;
	repo_text(id, text);
	int r = tree_repo(v->env.tree, id, true, &repo, &err);
	if (r == 0)
		r = tree_head(v->env.tree, &repo.id, name, true, &head, &err);
	if (r == 0)
		r = view_rev_get(v, &repo, name, one ? rec->source->path : "", &head, &rev);
	if (r == 0)
		r = view_open_stage(v, rev, false);
	if (r == -EBUSY || r == -ENOENT)
		return 0; /* another mount has it, or nothing was there */
	if (r < 0) {
		log_err("%s@%s has staged changes that cannot be published now: %s", text, name,
		        err.text[0] ? err.text : strerror(-r));
		return 0;
	}
	struct stage_counts counts = {0};
	if (!view_hold(rev))
		return 0; /* nothing but local times and modes was there */
	stage_counts(rev->stage, &counts);
	view_release(rev);
	if (!counts.files && !counts.deletions)
		return 0; /* local times, empty folders */
	log_info("%s@%s: found %llu staged files and %llu deletions of a former mount%s", text, name,
	         (unsigned long long)counts.files, (unsigned long long)counts.deletions,
	         counts.interrupted ? "; some were being written when it ended: see `hugfs status`" : "");
	return 0;
}

int view_recover(struct view *v, const struct repo_source *source)
{
	if (v->env.opts->read_only)
		return 0;
	struct recovery rec = {v, source};
	const struct repo_id *only = source->kind == REPO_SOURCE_REPO ? &source->id : NULL;
	int r = stage_scan(v->env.opts->staging_dir, hub_endpoint(v->env.hub), only, recover_one, &rec);
	return r == -ENOENT ? 0 : r;
}
