package auth_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/sqlite"
)

// However many ask, and in however many ways, one address gets few mails.
func TestF7_MailBombing(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Proxies: 1, OTP: true, Anonymous: true, Identifier: auth.RequireEmail})
	newAccount(t, s, "owner@example.com")
	newAccount(t, s, "mallory@example.com")
	s.clock.Add(2 * time.Hour)
	s.flush(t, "username", "first")
	before := len(s.inbox.to("owner@example.com"))
	tokens := s.login(t, "mallory@example.com")
	for _, victim := range []string{"owner@example.com", "nobody@example.com"} {
		for i := range 60 {
			at := func(b *browser) *browser { return b.with("X-Forwarded-For", fmt.Sprintf("198.51.100.%d", i)) }
			b := at(s.browser(t))
			var r reply
			switch i % 6 {
			case 0:
				r = b.post(api+"/register", object{"email": victim, "password": good, "password_repeat": good})
			case 1:
				var anonymous auth.Tokens
				b.post(api+"/login_anonymous", object{}).json(t, &anonymous)
				r = at(s.as(t, anonymous)).post(api+"/promote_anonymous", object{"new_email": victim, "new_password": good})
			case 2:
				r = b.post(api+"/reset_password/request", object{"email": victim})
			case 3:
				r = b.post(api+"/otp/request", object{"email": strings.ToUpper(victim)})
			case 4:
				r = b.get(api + "/verify_email/trigger?email=" + victim)
			case 5:
				r = at(s.as(t, tokens)).post(api+"/change_email", object{"new_email": victim})
			}
			want := 200
			if i >= 5 {
				want = 429
			}
			if r.status != want {
				t.Errorf("%s, request %d: %d %s, want %d", victim, i, r.status, r.body, want)
			}
		}
	}
	s.flush(t)
	if n := len(s.inbox.to("owner@example.com")) - before; n > 5 {
		t.Errorf("%d mails to the owner of an account", n)
	}
	if n := len(s.inbox.to("nobody@example.com")); n > 5 {
		t.Errorf("%d mails to somebody who has none", n)
	}
}

// Tags do not make several mailboxes of one.
func TestF7_TaggedAddresses(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	var statuses []int
	for _, email := range []string{"a@example.com", "a+1@example.com", "A+1+2@example.com", "a+@EXAMPLE.com", "+@example.com", "a+x@example.com", "a+y@example.com", "b+y@example.com"} {
		statuses = append(statuses, s.browser(t).post(api+"/reset_password/request", object{"email": email}).status)
	}
	if want := []int{200, 200, 200, 200, 200, 200, 429, 200}; !slices.Equal(statuses, want) {
		t.Errorf("statuses %v, want %v", statuses, want)
	}
}

func TestF7_MailsInAll(t *testing.T) {
	t.Parallel()
	limits := auth.Limits{GlobalMails: auth.Limit{Events: 10, Per: time.Hour}}
	s := newSite(t, auth.Config{Proxies: 1, Limits: limits})
	got := parallel(40, func(i int) reply {
		b := s.browser(t).with("X-Forwarded-For", fmt.Sprintf("198.51.100.%d", i))
		if i%2 == 0 {
			return b.post(api+"/reset_password/request", object{"email": fmt.Sprintf("u%d@example.com", i)})
		}
		return b.post(api+"/register", object{"email": fmt.Sprintf("u%d@example.com", i), "password": good, "password_repeat": good})
	})
	if got[200] != 10 || got[429] != 30 {
		t.Errorf("statuses %v", got)
	}
	// One address cannot ask for all of them.
	s = newSite(t, auth.Config{})
	got = parallel(40, func(i int) reply {
		return s.browser(t).post(api+"/reset_password/request", object{"email": fmt.Sprintf("u%d@example.com", i)})
	})
	if got[200] != 30 || got[429] != 10 {
		t.Errorf("statuses %v of one address", got)
	}
}

// What is undone has no mail.
func TestK2_NothingDoneNoMail(t *testing.T) {
	t.Parallel()
	refuse := errors.New("no")
	s := newSite(t, auth.Config{Anonymous: true, Identifier: auth.RequireEmail, Hooks: auth.Hooks{
		BeforeCreate: func(ctx context.Context, tx *sqlite.Tx, u *auth.NewUser) error {
			switch {
			case strings.HasPrefix(u.Email, "refused"):
				return &auth.Error{Status: http.StatusTeapot, Text: "refused"}
			case strings.HasPrefix(u.Email, "failed"):
				return refuse
			case strings.HasPrefix(u.Email, "panic"):
				panic("hook")
			case strings.HasPrefix(u.Email, "undone"): // the application's own write makes the commit fail
				_, err := tx.ExecContext(ctx, `INSERT INTO note (owner) VALUES (x'00')`)
				return err
			}
			return nil
		},
	}})
	s.exec(t, `CREATE TABLE note (owner BLOB REFERENCES _user(id) DEFERRABLE INITIALLY DEFERRED) STRICT`)
	b := s.browser(t)
	for name, status := range map[string]int{"refused": http.StatusTeapot, "failed": 500, "panic": 500} {
		r := b.post(api+"/register", object{"email": name + "@example.com", "password": good, "password_repeat": good})
		if r.status != status {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
	b.post(api+"/register", object{"email": "undone@example.com", "password": good, "password_repeat": good})
	for _, name := range []string{"refused", "failed", "panic"} {
		if _, err := s.CreateUser(t.Context(), auth.CreateUser{Email: name + "@example.com", Password: good}); err == nil {
			t.Errorf("CreateUser %s: no error", name)
		}
	}
	// A name that is taken undoes the promotion, and its mail.
	s.register(t, "ada@example.com", "username", "ada")
	s.inbox.wait(t, "ada@example.com", 1)
	var anonymous auth.Tokens
	b.post(api+"/login_anonymous", object{}).json(t, &anonymous)
	s.as(t, anonymous).post(api+"/promote_anonymous", object{"new_email": "lost@example.com", "new_username": "ada", "new_password": good}).
		want(t, "promotion", 409, "")
	s.flush(t)
	for _, name := range []string{"refused", "failed", "panic", "undone", "lost"} {
		if got := s.inbox.to(name + "@example.com"); got != nil {
			t.Errorf("a mail to %s: %s", name, got[0].Subject)
		}
		if n := s.rows(t, `_user WHERE unverified_email = ?`, name+"@example.com"); n != 0 {
			t.Errorf("%d accounts of %s", n, name)
		}
	}
}

func TestK6_MailerPanics(t *testing.T) {
	t.Parallel()
	wild := &wildMailer{inbox: newInbox(), done: map[string]bool{}}
	log := new(lockedBuffer)
	s := newSite(t, auth.Config{Mailer: wild, Logger: slog.New(slog.NewTextHandler(log, nil))})
	s.inbox = wild.inbox
	names := []string{"panic@example.com", "nil@example.com", "exit@example.com", "error@example.com"}
	for _, name := range names {
		s.register(t, name)
	}
	s.flush(t)
	for _, name := range names {
		if s.inbox.to(name) != nil {
			t.Errorf("%s was sent", name)
		}
	}
	s.clock.Add(time.Minute)
	s.flush(t)
	for _, name := range names {
		s.browser(t).form(s.link(t, s.inbox.wait(t, name, 1))).want(t, name, 200, "email verified")
		if n := len(s.inbox.to(name)); n != 1 {
			t.Errorf("%d mails to %s", n, name)
		}
	}
	// The panic had the whole mail in it.
	if text := log.String(); !strings.Contains(text, "panic") || strings.Contains(text, "/confirm/") {
		t.Errorf("log %s", text)
	}
}
