/* view_make: mkdir above the revisions: a repository in a namespace, a branch in repo@/. Not for folders of a revision
 * (view_change), nor for what is shown afterwards (view).
 *
 * Threads: any; view_make waits for the network, so workers only. */
#define LOG_MODULE "view"

#include <errno.h>
#include <string.h>

#include "log.h"
#include "view_internal.h"

static int need_repo(struct view *v, struct inode *dir, const char *name, struct view_need *need)
{
	struct repo_id id = *dir->repo;
	if (v->env.opts->create == OPTS_CREATE_NO)
		return -EPERM;
	if (!repo_name_valid(name) || strlen(name) >= sizeof(id.name))
		return -EINVAL;
	snprintf(id.name, sizeof(id.name), "%s", name);
	return view_need_name(need, VIEW_NEED_MAKE_REPO, &id, "");
}

static int need_branch(struct view *v, struct inode *dir, const char *name, struct view_need *need)
{
	char *prefix AUTO_FREE = view_rev_prefix(v, dir);
	char *plain AUTO_FREE = strstr(name, "%2F") ? repo_unescape(name) : strdup(name);
	if (!prefix || !plain)
		return -EINVAL;
	char *full AUTO_FREE = util_printf("%s%s", prefix, plain);
	if (!full)
		return -ENOMEM;
	/* refs/… is the Hub's own, and 40 hex digits are a commit. */
	if (strcmp(full, "refs") == 0 || strncmp(full, "refs/", 5) == 0 || repo_rev_kind(full) != REPO_REV_NAME ||
	    !repo_rev_valid(full))
		return -EINVAL;
	return view_need_name(need, VIEW_NEED_MAKE_BRANCH, dir->repo, full);
}

int view_make_upper(struct view *v, struct inode *dir, const char *name, struct view_need *need)
{
	struct inode *there;
	int r = view_lookup(v, dir, name, &there, need);
	if (r == 0) {
		view_put(v, there, 1);
		return -EEXIST;
	}
	if (r != -ENOENT)
		return r;
	if (v->env.opts->read_only)
		return -EROFS;
	if (dir->kind == INODE_NAMESPACE)
		return need_repo(v, dir, name, need);
	return dir->kind == INODE_REVS || dir->kind == INODE_REVPART ? need_branch(v, dir, name, need) : -EPERM;
}

static int make_repo(struct view *v, const struct repo_id *id, struct hub_error *err)
{
	static const char *const sdks[] = {
		[OPTS_SDK_STATIC] = "static", [OPTS_SDK_GRADIO] = "gradio", [OPTS_SDK_DOCKER] = "docker",
		[OPTS_SDK_STREAMLIT] = "streamlit",
	};
	bool is_private = v->env.opts->create == OPTS_CREATE_PRIVATE;
	int r = hub_create_repo(v->env.hub, id, is_private, sdks[v->env.opts->space_sdk], err);
	if (r < 0 && r != -EEXIST)
		return r;
	tree_forget_repo(v->env.tree, id);
	char text[REPO_TEXT_MAX];
	repo_text(id, text);
	if (r == 0)
		log_info("%s is made, %s", text, is_private ? "private" : "public");
	return r;
}

static int make_branch(struct view *v, const struct repo_id *id, const char *name, struct hub_error *err)
{
	struct tree_head head;
	int r = tree_head(v->env.tree, id, "main", true, &head, err);
	if (r == 0)
		r = hub_branch(v->env.hub, id, name, head.commit, err);
	if (r == 0)
		tree_adopt(v->env.tree, id, name, head.commit, head.date_s);
	else if (r == -EEXIST)
		tree_forget_head(v->env.tree, id, name);
	return r;
}

int view_make(struct view *v, const struct view_need *need)
{
	struct hub_error err = {0};
	return need->what == VIEW_NEED_MAKE_REPO ? make_repo(v, &need->repo, &err)
	                                         : make_branch(v, &need->repo, need->text, &err);
}
