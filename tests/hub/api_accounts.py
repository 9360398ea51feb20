"""Accounts and namespaces: whoami, overviews, and all repositories of a namespace with their storage."""

from errors import ApiError
from http_engine import json_response
from routes import encode_cursor, route
from store import ACCOUNTS, ORGANIZATIONS


@route("GET", "/api/whoami-v2")
def whoami(context):
    account = context.user()
    organizations = [
        {
            "type": "org",
            "id": f"{number:024x}",
            "name": name,
            "fullname": name,
            "email": None,
            "avatarUrl": f"/avatars/{name}.svg",
            "canPay": False,
            "periodEnd": None,
            "isEnterprise": False,
            "plan": None,
            "roleInOrg": account.role_in_organizations,
        }
        for number, name in enumerate(account.organizations, 1)
    ]
    token = {"displayName": account.name, "role": account.role, "createdAt": "2026-01-02T03:04:05.000Z"}
    if account.role == "fineGrained":
        token["fineGrained"] = {
            "canReadGatedRepos": True,
            "global": [],
            "scoped": [
                {
                    "entity": {"_id": account.id, "type": "user", "name": account.name},
                    "permissions": ["repo.content.read", "repo.write"],
                }
            ],
        }
    return json_response(
        {
            "type": "user",
            "id": account.id,
            "name": account.name,
            "fullname": account.name.capitalize(),
            "email": f"{account.name}@example.org",
            "emailVerified": True,
            "isPro": False,
            "canPay": False,
            "periodEnd": None,
            "avatarUrl": f"/avatars/{account.id}.svg",
            "billingMode": "prepaid",
            "orgs": organizations,
            "auth": {"type": "access_token", "accessToken": token},
        }
    )


def _counts(context, name):
    kinds = [
        repo.type
        for repo in list(context.store.repos.values())
        if repo.namespace.lower() == name.lower() and repo.readable(context.account)
    ]
    return {
        "numModels": kinds.count("model"),
        "numDatasets": kinds.count("dataset"),
        "numSpaces": kinds.count("space"),
    }


@route("GET", "/api/users/{name}/overview")
def user_overview(context, name):
    for account in ACCOUNTS:
        if account.name == name.lower():
            return json_response(
                {
                    "user": account.name,
                    "fullname": account.name.capitalize(),
                    "type": "user",
                    "avatarUrl": f"/avatars/{account.id}.svg",
                    "isPro": False,
                    **_counts(context, name),
                }
            )
    raise ApiError(404, "This user does not exist")


@route("GET", "/api/organizations/{name}/overview")
def organization_overview(context, name):
    if name.lower() not in ORGANIZATIONS:
        raise ApiError(404, "This organization does not exist")
    return json_response(
        {
            "name": name.lower(),
            "fullname": name.lower(),
            "type": "org",
            "avatarUrl": f"/avatars/{name.lower()}.svg",
            **_counts(context, name),
        }
    )


@route("GET", "/api/settings/repositories")
def own_repositories(context):
    return _repositories(context, context.user().name)


@route("GET", "/api/organizations/{name}/settings/repositories")
def organization_repositories(context, name):
    account = context.user()
    if name.lower() not in ORGANIZATIONS:
        raise ApiError(404, "This organization does not exist")
    if not account.member(name):
        raise ApiError(403, "Forbidden: you are not a member of this organization")
    return _repositories(context, name.lower())


def _repositories(context, namespace):
    """All repositories of a namespace, of every type, in pages."""
    found = sorted(
        (repo for repo in list(context.store.repos.values()) if repo.namespace.lower() == namespace),
        key=lambda repo: repo.uid,
    )
    used = {repo.uid: repo.lfs_total() for repo in found}
    whole = sum(used.values())
    after = context.cursor() or ""
    rest = [repo for repo in found if repo.uid > after]
    limit = context.config.page(context.number("limit"), 100, 1000)
    headers = [context.next_link(cursor=encode_cursor(rest[limit - 1].uid))] if len(rest) > limit else []
    items = [
        {
            "id": repo.id,
            "type": repo.type,
            "updatedAt": repo.updated(),
            "visibility": repo.visibility,
            "storage": used[repo.uid],
            "storagePercent": used[repo.uid] / whole if whole else 0.0,
        }
        for repo in rest[:limit]
    ]
    return json_response(items, 200, headers)
