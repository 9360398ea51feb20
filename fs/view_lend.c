/* view_lend: bytes of clean files that are not copied: shown where they lie, or lent to the kernel as a whole.
 *
 * Not for: what is staged, nor what is to be fetched first: those are read (view_read). Threads: any. */
#define LOG_MODULE "view"

#include <errno.h>

#include "view_internal.h"

int view_look(struct view *v, struct inode *inode, uint64_t off, size_t len, struct view_look *ret)
{
	struct rev *rev = inode->rev;
	struct source *source CLEANUP(fetch_closep) = NULL;
	{
		LOCKED(&rev->lock);
		view_check_snode(rev, inode);
		if (inode->snode || !inode->place || off >= inode->key.size)
			return -EAGAIN;
		len = MIN(len, inode->key.size - off);
		int r = view_source_for(v, rev, inode, &inode->key, inode->place->commit, inode->place->path, &source);
		if (r < 0)
			return r;
	}
	const void *data;
	int r = fetch_look(source, off, len, &data);
	if (r == 0)
		*ret = (struct view_look){.source = STEAL(source), .off = off, .len = len, .data = data};
	return r;
}

void view_look_end(struct view_look *l)
{
	fetch_look_end(l->source, l->off, l->len);
	fetch_close(l->source);
}

int view_lend(struct view *v, struct inode *inode, struct loan **ret)
{
	struct rev *rev = inode->rev;
	struct source *source CLEANUP(fetch_closep) = NULL;
	view_check_snode(rev, inode);
	if (inode->snode || !inode->place || util_now_ms() < rev->no_loans_ms)
		return -EAGAIN;
	int r = view_source_for(v, rev, inode, &inode->key, inode->place->commit, inode->place->path, &source);
	return r < 0 ? r : fetch_lend(source, ret);
}

bool view_may_keep_pages(struct view *v, struct inode *inode)
{
	LOCKED(&inode->rev->lock);
	return inode->snode || !fetch_was_wrong(v->env.fetch, &inode->key);
}
