package auth_test

import (
	"slices"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth"
)

// Many streams are checked in a moment, each on its own, whoever stands beside
// it in the list.
func TestAttackCurrentOfMany(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	ada, bob := newAccount(t, s, "ada@example.com"), newAccount(t, s, "bob@example.com")
	mine, his := callerWith(t, s, s.login(t, "ada@example.com").AuthToken), callerWith(t, s, s.login(t, "bob@example.com").AuthToken)
	// With the session of one and the id of the other, nobody is current.
	stolen := *mine
	stolen.ID = bob
	raised := *mine
	raised.Admin = true
	wrong := *mine
	wrong.Credential = auth.APIKey
	of := []*auth.User{mine, nil, his, &stolen, &raised, &wrong, {}, {ID: ada}, {ID: bob, Credential: auth.External}, {ID: bob, Credential: auth.Cookie}}
	want := []bool{true, false, true, false, false, false, false, true, false, false}
	const n = 100_000
	users, all := make([]*auth.User, 0, n), make([]bool, 0, n)
	for len(users) < n {
		users, all = append(users, of...), append(all, want...)
	}
	begin := time.Now()
	got := current(t, s, users...)
	t.Logf("%v for %d", time.Since(begin), n)
	if !slices.Equal(got, all) {
		t.Error("not as one by one")
	}
	for i := range of {
		if got := current(t, s, of[i])[0]; got != want[i] {
			t.Errorf("user %d: %v", i, got)
		}
	}
	s.exec(t, `UPDATE _user SET disabled = 1 WHERE email = 'ada@example.com'`)
	if got := current(t, s, users...); got[0] || !got[2] || got[7] {
		t.Error("disabled:", got[:10])
	}
}

// Whatever an issuer calls its accounts, one is not another.
func TestAttackCurrentOddSubjects(t *testing.T) {
	t.Parallel()
	s, issuer := newExternal(t, auth.Config{})
	subjects := []string{`1`, `01`, ` 1`, `1 `, `1.0`, `null`, `"`, `\`, `\u0031`, `]`, `1",["`, "a\x01b", "a\nb", "ä", "Ä", "\u2028", "😀", "A", "a", "%", "$[0]", `{"a":1}`, `[1]`, "\uFFFD"}
	var users []*auth.User
	for i, subject := range subjects {
		s.know(t, newAccount(t, s, string(rune('a'+i))+"@example.com"), issuerName, subject)
		users = append(users, callerWith(t, s, issuer.issue(s.clock.Now().Add(time.Hour), auth.Identity{Subject: subject}, 0)))
	}
	if got := current(t, s, users...); slices.Contains(got, false) {
		t.Errorf("not current: %v of %q", got, subjects)
	}
	for i, subject := range subjects {
		s.exec(t, `UPDATE _user_identity SET subject = subject || 'x' WHERE subject = ?`, subject)
		for j, stays := range current(t, s, users...) {
			if stays != (j > i) {
				t.Errorf("%q is gone: %q is current: %v", subject, subjects[j], stays)
			}
		}
	}
}

// The clock may be set back and forth: nothing comes to life by it that was
// ended, and nothing that is there dies for good.
func TestAttackCurrentClock(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{AccessTTL: time.Hour, RefreshTTL: 2 * time.Hour})
	newAccount(t, s, "ada@example.com")
	tokens := s.login(t, "ada@example.com")
	here, other := callerWith(t, s, tokens.AuthToken), callerWith(t, s, s.login(t, "ada@example.com").AuthToken)
	s.browser(t).post(api+"/logout", object{"refresh_token": tokens.RefreshToken}).want(t, "logout", 200, "")
	for _, then := range []struct {
		step  time.Duration
		stays bool
	}{
		{0, true}, {-24 * time.Hour, true}, {24*time.Hour + time.Minute, true}, {90 * time.Minute, true},
		{24 * time.Hour, false}, {-49 * time.Hour, true},
	} {
		s.clock.Add(then.step)
		got := current(t, s, here, other)
		if got[0] {
			t.Errorf("%v on: what was signed out is current", then.step)
		}
		if got[1] != then.stays {
			t.Errorf("%v on: the other session: %v, want %v", then.step, got[1], then.stays)
		}
	}
}
