/* view_bytes: where the bytes of a file come from as this mount shows it now, and what an open handle holds on to.
 *
 * Not for: fetching (fetch), staged bytes (stage).
 *
 * Threads: any FUSE thread and worker; see view.c. */
#define LOG_MODULE "view"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "view_internal.h"

int view_source_for(struct view *v, struct rev *rev, struct inode *inode, const struct blob_key *key,
                    const char *commit, const char *path, struct source **ret)
{
	if (!inode->source || !hash_key_equal(fetch_key(inode->source), key)) {
		struct hub_place place = {.id = rev->repo, .path = path};
		memcpy(place.commit, commit, sizeof(place.commit));
		struct source *source;
		int r = fetch_open(v->env.fetch, key, &place, &source);
		if (r < 0)
			return r;
		fetch_close(inode->source);
		inode->source = source;
	}
	*ret = fetch_ref(inode->source);
	return 0;
}

static ssize_t read_source(struct source *source, uint64_t off, void *buf, size_t len, struct view_need *need)
{
	struct source *held CLEANUP(fetch_closep) = source;
	ssize_t n = fetch_read(held, off, buf, len);
	if (n == -EAGAIN) {
		view_need_fini(need);
		need->what = VIEW_NEED_BLOCKS;
		need->off = off;
		need->len = len;
		need->source = STEAL(held);
	}
	return n;
}

static ssize_t read_clean(struct view *v, struct inode *inode, uint64_t off, void *buf, size_t len,
                          struct view_need *need)
{
	struct rev *rev = inode->rev;
	struct source *source;
	{
		LOCKED(&rev->lock);
		if (inode->snode)
			return -ESTALE; /* it was staged just now */
		if (!inode->place)
			return -EIO; /* its staged bytes were thrown away */
		if (off >= inode->key.size)
			return 0;
		len = MIN(len, inode->key.size - off);
		int r = view_source_for(v, rev, inode, &inode->key, inode->place->commit, inode->place->path, &source);
		if (r < 0)
			return r;
	}
	return read_source(source, off, buf, len, need);
}

static int gap_source(struct view *v, struct inode *inode, const struct stage_gap *gap, struct source **ret)
{
	LOCKED(&inode->rev->lock);
	return view_source_for(v, inode->rev, inode, &gap->key, gap->commit, gap->path, ret);
}

/* -ESTALE: the node went, the file is clean now. */
static ssize_t read_staged(struct view *v, struct inode *inode, struct stage *stage, uint64_t snode, uint64_t off,
                           void *buf, size_t len, struct view_need *need)
{
	struct stage_gap gap;
	size_t done = 0;
	while (done < len) {
		ssize_t n = stage_read(stage, snode, off + done, (char *)buf + done, len - done, &gap);
		if (n == -ENOENT)
			return -ESTALE;
		if (n < 0)
			return n;
		if (n == 0 && gap.len == 0)
			break;
		if (n == 0) {
			struct source *source;
			int r = gap_source(v, inode, &gap, &source);
			if (r < 0)
				return r;
			n = read_source(source, gap.off, (char *)buf + done, MIN(len - done, gap.len), need);
			if (n <= 0)
				return n < 0 ? n : -EIO;
		}
		done += (size_t)n;
	}
	return (ssize_t)done;
}

ssize_t view_read(struct view *v, struct inode *inode, uint64_t off, void *buf, size_t len, struct view_need *need)
{
	/* A commit may settle the file between two looks, and a writer may stage it: then look again. */
	for (;;) {
		struct stage *stage;
		uint64_t snode;
		{
			LOCKED(&inode->rev->lock);
			view_check_snode(inode->rev, inode);
			stage = inode->rev->stage;
			snode = inode->snode;
			if (snode)
				inode->rev->users++; /* the stage stays while it is read */
		}
		ssize_t n = snode ? read_staged(v, inode, stage, snode, off, buf, len, need)
		                  : read_clean(v, inode, off, buf, len, need);
		if (snode)
			view_release(inode->rev);
		if (n != -ESTALE)
			return n;
	}
}

int view_blob(struct view *v, struct inode *inode, struct stage_blob *blob, char **ret_path)
{
	LOCKED(&inode->rev->lock);
	view_check_snode(inode->rev, inode);
	if (inode->snode || !inode->place)
		return -ENODATA;
	*ret_path = strdup(inode->place->path);
	if (!*ret_path)
		return -ENOMEM;
	*blob = (struct stage_blob){.key = inode->key, .path = *ret_path};
	memcpy(blob->commit, inode->place->commit, sizeof(blob->commit));
	return 0;
}

uint64_t view_snode(struct inode *inode)
{
	LOCKED(&inode->rev->lock);
	view_check_snode(inode->rev, inode);
	return inode->snode;
}

int view_opened(struct view *v, struct inode *inode)
{
	struct rev *rev = inode->rev;
	LOCKED(&rev->lock);
	bool staged = inode->snode != 0;
	view_check_snode(rev, inode);
	/* What it was is gone (replaced, deleted, discarded) since the kernel looked: it looks the name up again. */
	if (!inode->snode && (!inode->place || (staged && inode_is_detached(v->table, inode))))
		return -ESTALE;
	if (inode->opens == 0 && inode->snode) {
		int r = stage_pin(rev->stage, inode->snode);
		if (r < 0)
			return r;
		inode->pinned = true;
		rev->users++;
	}
	inode->opens++;
	return 0;
}

void view_closed(struct view *v, struct inode *inode)
{
	struct rev *rev = inode->rev;
	struct source *source = NULL;
	{
		LOCKED(&rev->lock);
		assert(inode->opens > 0);
		if (--inode->opens > 0)
			return;
		source = STEAL(inode->source);
		if (inode->pinned) {
			stage_unpin(rev->stage, inode->snode);
			inode->pinned = false;
			rev->users--;
			view_check_snode(rev, inode);
		}
	}
	fetch_close(source);
}
