package auth_test

import (
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth"
)

// An identities is the answer of GET /oauth/identities.
type identities struct {
	Identities []struct{ ID, Provider, Issuer, Subject string }
}

func listIdentities(b *browser) identities {
	b.t.Helper()
	var list identities
	r := b.get(api + "/oauth/identities")
	if r.status != 200 {
		b.t.Fatalf("identities: %d %s", r.status, r.body)
	}
	r.json(b.t, &list)
	return list
}

// link links the user of a provider and returns the answer of the callback.
func (f *federation) link(b *browser, name string) reply {
	b.t.Helper()
	var at struct{ URL string }
	r := b.post(api+"/oauth/"+name+"/link", object{"redirect_uri": "/settings"})
	if r.status != 200 {
		b.t.Fatalf("link: %d %s", r.status, r.body)
	}
	r.json(b.t, &at)
	callback := approve(b.t, f.site, at.URL)
	b.header.Del("Authorization") // the browser comes back, not the program
	return b.get(callback)
}

func TestLink(t *testing.T) {
	t.Parallel()
	f := newFederation(t, auth.Config{})
	f.addUser(t, "ada@example.com")
	f.addUser(t, "eve@example.com")
	f.a.SetUser(person("1", "else@example.com"))
	ada, eve := f.login(t, "ada@example.com"), f.login(t, "eve@example.com")

	want(t, "nobody", f.browser(t).post(api+"/oauth/a/link", object{}), 401, "")
	want(t, "nobody", f.browser(t).get(api+"/oauth/identities"), 401, "")
	want(t, "unknown provider", f.as(t, ada).post(api+"/oauth/none/link", object{}), 405, "")
	want(t, "redirect", f.as(t, ada).post(api+"/oauth/a/link", object{"redirect_uri": "//evil.example"}), 400, "invalid redirect")
	if list := listIdentities(f.as(t, ada)); list.Identities == nil || len(list.Identities) != 0 {
		t.Errorf("%+v", list)
	}

	r := f.link(f.as(t, ada), "a")
	if r.status != http.StatusSeeOther || r.location() != "/settings?alert=linked" {
		t.Fatalf("%d %s to %q", r.status, r.body, r.location())
	}
	if cookies(r)["auth_token"] != nil {
		t.Error("linking signs in")
	}
	list := listIdentities(f.as(t, ada))
	if len(list.Identities) != 1 || list.Identities[0].Provider != "a" || list.Identities[0].Subject != "1" || list.Identities[0].Issuer != f.a.Issuer {
		t.Errorf("%+v", list)
	}
	b := f.browser(t)
	want(t, "sign in", f.signIn(b, "a"), 200, "logged in")
	want(t, "whoami", b.get("/whoami"), 200, "ada@example.com")

	want(t, "the same again", f.link(f.as(t, ada), "a"), http.StatusSeeOther, "")
	want(t, "somebody else's", f.link(f.as(t, eve), "a"), http.StatusConflict, "belongs to another account")
	f.a.SetUser(person("2", ""))
	want(t, "another of the same provider", f.link(f.as(t, ada), "a"), http.StatusConflict, "linked already")
	f.exec(t, `INSERT INTO _user (email, provider_id, provider_user_id) VALUES ('old@example.com', ?, '3')`, numberA)
	f.a.SetUser(person("3", ""))
	want(t, "an imported account's", f.link(f.as(t, eve), "a"), http.StatusConflict, "belongs to another account")

	f.clock.Add(11 * time.Minute)
	want(t, "not fresh", f.as(t, eve).post(api+"/oauth/a/link", object{}), http.StatusForbidden, "sign in again first")
	want(t, "not fresh", f.as(t, ada).do("DELETE", api+"/oauth/identities/a", "", ""), http.StatusForbidden, "sign in again first")
}

func TestC9_LinkEndsWithItsSession(t *testing.T) {
	t.Parallel()
	f := newFederation(t, auth.Config{})
	ada := f.addUser(t, "ada@example.com")
	f.addUser(t, "eve@example.com")
	begin := func(b *browser) string {
		t.Helper()
		r := b.form(api + "/oauth/a/link")
		if r.status != http.StatusSeeOther {
			t.Fatalf("link: %d %s", r.status, r.body)
		}
		return approve(t, f.site, r.location())
	}
	signedIn := func(email string) *browser {
		b := f.browser(t)
		b.form(api+"/login", "email", email, "password", good)
		return b
	}

	b := signedIn("ada@example.com")
	callback := begin(b)
	if err := f.EndSessions(t.Context(), ada); err != nil {
		t.Fatal(err)
	}
	want(t, "session ended", b.get(callback), 401, "")

	b = signedIn("ada@example.com")
	callback = begin(b)
	b.form(api+"/login", "email", "eve@example.com", "password", good)
	want(t, "somebody else has signed in", b.get(callback), http.StatusForbidden, "")

	b = signedIn("ada@example.com")
	callback = begin(b)
	f.exec(t, `UPDATE _user SET disabled = 1 WHERE id = ?`, ada[:])
	if r := b.get(callback); r.status != 401 {
		t.Errorf("disabled: %d %s", r.status, r.body)
	}
	f.exec(t, `UPDATE _user SET disabled = 0`)
	f.wantCount(t, 0, `_user_identity`)

	// A sign-in is no link and a link no sign-in.
	b = signedIn("ada@example.com")
	f.a.SetUser(person("9", "nine@example.com"))
	want(t, "sign in", f.signIn(b, "a"), 200, "logged in")
	want(t, "whoami", b.get("/whoami"), 200, "nine@example.com")
	f.wantCount(t, 0, `_user_identity WHERE user = ?`, ada[:])

	b = signedIn("ada@example.com")
	f.a.SetUser(person("10", ""))
	want(t, "right", b.get(begin(b)), 200, "linked")
	f.wantCount(t, 1, `_user_identity WHERE user = ? AND subject = '10'`, ada[:])
}

func TestUnlink(t *testing.T) {
	t.Parallel()
	f := newFederation(t, auth.Config{})
	f.a.SetUser(person("1", "ada@example.com"))
	f.b.SetUser(person("2", ""))
	b := f.browser(t)
	want(t, "sign in", f.signIn(b, "a"), 200, "logged in")
	unlink := func(by *browser, name string) reply { return by.do("DELETE", api+"/oauth/identities/"+name, "", "") }

	want(t, "the last way in", unlink(b, "a"), http.StatusConflict, "Set a password")
	want(t, "cross-site", unlink(b.with("Sec-Fetch-Site", "cross-site"), "a"), http.StatusForbidden, "cross-origin")
	var at struct{ URL string }
	b.post(api+"/oauth/b/link", object{}).json(t, &at)
	want(t, "link", b.get(approve(t, f.site, at.URL)), 200, "linked")

	stranger := f.browser(t)
	f.a.SetUser(person("3", "eve@example.com"))
	want(t, "stranger", f.signIn(stranger, "a"), 200, "logged in")
	f.a.SetUser(person("1", ""))
	list := listIdentities(b)
	if len(list.Identities) != 2 {
		t.Fatalf("%+v", list)
	}
	for _, name := range []string{"none", list.Identities[0].ID, list.Identities[1].ID, "b"} {
		want(t, "of somebody else", unlink(stranger, name), 404, "")
	}
	want(t, "none", unlink(b, "none"), 404, "")

	thief := f.browser(t) // has the account at a, and got in with it
	want(t, "thief", f.signIn(thief, "a"), 200, "logged in")
	want(t, "unlink", unlink(b, "a"), 200, "unlinked")
	want(t, "thief", thief.get("/whoami"), 200, "anonymous")
	want(t, "caller", b.get("/whoami"), 200, "ada@example.com")
	want(t, "last of two", unlink(b, "b"), http.StatusConflict, "Set a password")

	// The columns that the account was made with do not bring it back.
	f.a.SetUser(person("1", "ada2@example.com"))
	again := f.browser(t)
	want(t, "sign in", f.signIn(again, "a"), 200, "logged in")
	want(t, "whoami", again.get("/whoami"), 200, "ada2@example.com")

	f.exec(t, `UPDATE _user SET password_hash = 'x' WHERE email = 'ada@example.com'`)
	id := listIdentities(b).Identities[0].ID
	want(t, "with a password, by id", unlink(b, id), 200, "unlinked")
	f.wantCount(t, 0, `_user_identity WHERE user = (SELECT id FROM _user WHERE email = 'ada@example.com')`)
	f.wantCount(t, 1, `_user WHERE email = 'ada@example.com' AND provider_id = ? AND provider_user_id IS NULL`, numberA)
}

// Of two ways in that are removed at the same time, one stays.
func TestUnlinkRace(t *testing.T) {
	t.Parallel()
	f := newFederation(t, auth.Config{})
	f.a.SetUser(person("1", "ada@example.com"))
	b := f.browser(t)
	want(t, "sign in", f.signIn(b, "a"), 200, "logged in")
	f.exec(t, `INSERT INTO _user_identity SELECT ?, 'x', user, ?, created, seen FROM _user_identity`, f.b.Issuer, numberB)
	var all sync.WaitGroup
	var statuses [2]int
	for i, name := range []string{"a", "b"} {
		all.Go(func() { statuses[i] = b.do("DELETE", api+"/oauth/identities/"+name, "", "").status })
	}
	all.Wait()
	slices.Sort(statuses[:])
	if statuses != [2]int{200, 409} {
		t.Errorf("%v", statuses)
	}
	f.wantCount(t, 1, `_user_identity`)
}

func TestLinkOfImportedAccount(t *testing.T) {
	t.Parallel()
	f := newFederation(t, auth.Config{})
	f.addUser(t, "old@example.com")
	f.exec(t, `UPDATE _user SET provider_id = ?, provider_user_id = 'sub'`, numberA)
	b := f.as(t, f.login(t, "old@example.com"))
	if list := listIdentities(b); len(list.Identities) != 1 || list.Identities[0].Subject != "sub" {
		t.Errorf("%+v", list)
	}
	f.exec(t, `DELETE FROM _user_identity`)
	want(t, "unlink", b.do("DELETE", api+"/oauth/identities/a", "", ""), 200, "unlinked")
	f.a.SetUser(person("sub", "sub@example.com"))
	again := f.browser(t)
	want(t, "sign in", f.signIn(again, "a"), 200, "logged in")
	want(t, "whoami", again.get("/whoami"), 200, "sub@example.com")
}

func TestLinkOfAnonymousAccount(t *testing.T) {
	t.Parallel()
	f := newFederation(t, auth.Config{Anonymous: true, Identifier: auth.RequireUsername})
	var tokens auth.Tokens
	f.browser(t).post(api+"/login_anonymous", object{}).json(t, &tokens)
	f.a.SetUser(person("1", ""))
	want(t, "link", f.link(f.as(t, tokens), "a"), http.StatusSeeOther, "")
	f.wantCount(t, 1, `_user WHERE provider_id = ? AND provider_user_id = '1'`, numberA)
	want(t, "promote", f.as(t, tokens).post(api+"/promote_anonymous", object{
		"new_username": "ada", "new_password": good, "new_password_repeat": good,
	}), http.StatusFailedDependency, "")
	name := f.as(t, tokens).get("/whoami").body
	b := f.browser(t)
	want(t, "sign in", f.signIn(b, "a"), 200, "logged in")
	want(t, "whoami", b.get("/whoami"), 200, name)
}
