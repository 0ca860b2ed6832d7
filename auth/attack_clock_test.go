package auth_test

import (
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth"
)

func TestB12_AccessTokens(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	tokens := s.login(t, "ada@example.com")
	whoami := func(token string) string {
		return s.browser(t).with("Authorization", "Bearer "+token).whoami()
	}
	step := func(d time.Duration, want string) {
		t.Helper()
		s.clock.Add(d)
		if got := whoami(tokens.AuthToken); got != want {
			t.Errorf("after a step of %v: %s, want %s", d, got, want)
		}
		if got := s.refreshes(t, tokens.RefreshToken); got != 200 {
			t.Errorf("after a step of %v the session is dead: %d", d, got)
		}
	}
	step(0, "ada@example.com")
	step(-time.Hour, "anonymous") // from the future
	step(time.Hour, "ada@example.com")
	step(-24*time.Hour, "anonymous")
	step(24*time.Hour, "ada@example.com")
	step(time.Hour+time.Minute, "ada@example.com") // leeway
	step(time.Second, "anonymous")
	step(-59*time.Second, "ada@example.com")
	s.clock.Add(time.Hour)

	// What is issued while the clock is wrong is good then, and no longer.
	for _, d := range []time.Duration{time.Hour, -time.Hour, -24 * time.Hour} {
		s.clock.Add(d)
		var fresh auth.Tokens
		s.browser(t).post(api+"/refresh", object{"refresh_token": tokens.RefreshToken}).json(t, &fresh)
		if got := whoami(fresh.AuthToken); got != "ada@example.com" {
			t.Errorf("issued after a step of %v: %s", d, got)
		}
		s.clock.Add(-d)
		if got := whoami(fresh.AuthToken); got == "ada@example.com" && d > 0 {
			t.Errorf("issued while the clock was %v ahead: still good", d)
		}
	}
}

// What is made for a while must not live for longer because the clock was set
// back, whatever it says in the database.
func TestB12_OneTimeTokens(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	for _, back := range []time.Duration{-time.Hour, -24 * time.Hour} {
		code := s.code(t, "ada@example.com")
		s.clock.Add(back)
		s.clock.Add(2*time.Minute + time.Second)
		if r := s.exchange(t, code, verifier); r.status != 404 {
			t.Errorf("a code that is two minutes old after a step of %v: %d %s", back, r.status, r.body)
		}
		if r := s.exchange(t, s.code(t, "ada@example.com"), verifier); r.status != 200 {
			t.Errorf("a fresh code after a step of %v: %d %s", back, r.status, r.body)
		}
		s.clock.Add(-back)
	}
	s.browser(t).post(api+"/reset_password/request", object{"email": "ada@example.com"})
	reset := s.mailed(t, "ada@example.com", "/update/")
	s.clock.Add(31*time.Minute - 24*time.Hour)
	r := s.browser(t).post(api+"/reset_password/update", object{"password": good, "password_repeat": good, "password_reset_token": reset})
	if r.status != 400 || r.body != "Invalid token" {
		t.Errorf("a reset token after a step back: %d %s", r.status, r.body)
	}
}

func TestB12_Sessions(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	var tokens []auth.Tokens
	for range 105 { // more than one user may have
		tokens = append(tokens, s.login(t, "ada@example.com"))
	}
	if s.refreshes(t, tokens[104].RefreshToken) != 200 {
		t.Error("the newest of many sessions at the same second is dead")
	}
	s.clock.Add(-24 * time.Hour)
	late := s.login(t, "ada@example.com")
	if s.refreshes(t, late.RefreshToken) != 200 {
		t.Error("a session that begins after the clock was set back is dead")
	}
	alive := 0
	for _, one := range tokens {
		if s.refreshes(t, one.RefreshToken) == 200 {
			alive++
		}
	}
	if alive != 99 {
		t.Errorf("%d of the other sessions are alive, want 99", alive)
	}
	// Rotation goes on, too.
	_, next := s.rotate(t, late.RefreshToken)
	s.clock.Add(-time.Hour)
	if r, _ := s.rotate(t, next.RefreshToken); r.status != 200 {
		t.Errorf("rotation after the clock was set back: %d", r.status)
	}
}

func TestB12_Limits(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	b := s.browser(t)
	s.exec(t, `DELETE FROM _known_device`)
	status := func(password string) int {
		return b.post(api+"/login", object{"email": "ada@example.com", "password": password}).status
	}
	for range 20 {
		status("Wrong.horse.7")
	}
	if got := status(good); got != 429 {
		t.Fatalf("not locked: %d", got)
	}
	s.clock.Add(-24 * time.Hour)
	if got := status(good); got != 429 {
		t.Errorf("a step back unlocks: %d", got)
	}
	s.clock.Add(2 * time.Minute)
	if got := status(good); got != 200 {
		t.Errorf("a step back locks for longer: %d", got)
	}
}
