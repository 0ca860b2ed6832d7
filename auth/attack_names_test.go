package auth_test

import (
	"fmt"
	netmail "net/mail"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/auth/mail"
)

func TestA15_LinesThroughTheRoutes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := filepath.Join(dir, "sendmail")
	// Each mail becomes a file: the arguments, an empty line, the message.
	if err := os.WriteFile(script, []byte("#!/bin/sh\nf=$(mktemp \"$(dirname \"$0\")\"/mail.XXXXXX)\n{ printf '%s\\n' \"$@\"; echo; cat; } > \"$f\"\n"), 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	program, err := mail.NewSendmail(mail.SendmailConfig{Path: script, From: "app@site.example"})
	if err != nil {
		t.Fatal(err)
	}
	kept := newInbox()
	s := newSite(t, auth.Config{
		OTP: true, Identifier: auth.RequireEmail, Limits: wideLimits(), AppName: "Appl\u00e9 \"Pie\", <Inc.>",
		Mailer: mailers{kept, program},
	})
	s.inbox = kept
	s.addUser(t, "ada@example.com")
	me := s.as(t, s.login(t, "ada@example.com")).with("User-Agent", "<b>evil</b>, {{.Token}} =?utf-8?q?x?= \u202e")
	b := s.browser(t)
	for _, line := range lines {
		for what, r := range map[string]reply{
			"register":           b.post(api+"/register", object{"email": line, "password": good, "password_repeat": good}),
			"register, form":     b.form(api+"/register", "email", line, "password", good, "password_repeat", good),
			"register, name":     b.post(api+"/register", object{"email": "x@example.com", "username": line, "password": good, "password_repeat": good}),
			"register, target":   b.post(api+"/register", object{"email": "x@example.com", "password": good, "password_repeat": good, "redirect_uri": line}),
			"reset":              b.post(api+"/reset_password/request", object{"email": line}),
			"reset, either":      b.post(api+"/reset_password/request", object{"email_or_username": line}),
			"reset, target":      b.post(api+"/reset_password/request", object{"email": "ada@example.com", "redirect_uri": "/" + line + "\r\n"}),
			"otp":                b.post(api+"/otp/request", object{"email": line}),
			"trigger":            b.get(api + "/verify_email/trigger?email=" + url.QueryEscape(line)),
			"change":             me.post(api+"/change_email", object{"new_email": line}),
			"change of username": me.post(api+"/change_username", object{"new_username": line}),
		} {
			if r.status != 400 {
				t.Errorf("%s %q: %d %s", what, line, r.status, r.body)
			}
		}
	}
	// What is allowed arrives as it is.
	odd := "o'b/r{i}e&n+tag=?x?=$%@example.com"
	s.addUser(t, odd)
	s.exec(t, `UPDATE _user SET username = 'Ж\u0436' || char(10) || 'Bcc: evil@example.com', totp_secret = NULL WHERE email = ?`, odd)
	b.post(api+"/reset_password/request", object{"email": odd, "redirect_uri": "/a?b=%0d%0aBcc:evil"}).want(t, "reset", 303, "*")
	me.post(api+"/change_password", object{"old_password": good, "new_password": good}).want(t, "change", 200, "*")
	s.flush(t)

	files, err := filepath.Glob(filepath.Join(dir, "mail.*"))
	if err != nil || len(files) < 3 {
		t.Fatalf("%d mails, %v; want the reset, the notice and the last", len(files), err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		arguments, message, _ := strings.Cut(string(data), "\n\n")
		args := strings.Split(arguments, "\n")
		to := args[len(args)-1]
		if len(args) != 5 || args[3] != "--" {
			t.Errorf("arguments %q", args)
		}
		m, err := netmail.ReadMessage(strings.NewReader(message))
		if err != nil {
			t.Fatalf("%v in %q", err, message)
		}
		list, err := m.Header.AddressList("To")
		if err != nil || len(list) != 1 || list[0].Address != to || strings.Contains(to, "evil") {
			t.Errorf("recipients %v and %q, %v", list, to, err)
		}
		for _, name := range []string{"Bcc", "Cc", "Reply-To", "Sender", "Resent-To"} {
			if m.Header[name] != nil {
				t.Errorf("%s: %q", name, m.Header[name])
			}
		}
		for _, name := range []string{"To", "From", "Subject", "Date", "Message-Id", "Mime-Version", "Content-Type"} {
			if len(m.Header[name]) != 1 {
				t.Errorf("%d headers %s", len(m.Header[name]), name)
			}
		}
	}
	kept.mu.Lock()
	defer kept.mu.Unlock()
	for _, m := range kept.mail {
		if strings.ContainsFunc(m.Subject, unicode.IsControl) || strings.Contains(m.Text, "\nBcc:") || strings.Contains(m.HTML, "<b>evil") {
			t.Errorf("mail %+v", m)
		}
	}
}

// Addresses and names that look alike are one, or are refused, or are what the
// documentation says.
func TestA16_NamesThatLookAlike(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Identifier: auth.RequireUsername, Limits: wideLimits()})
	b := s.browser(t)
	s.register(t, "ada@example.com", "username", "ada")
	b.form(s.link(t, s.inbox.wait(t, "ada@example.com", 1)))
	for i, email := range []string{"ADA@example.com", "ada@EXAMPLE.com", " ada@example.com ", "\tAda@Example.Com\n"} {
		b.post(api+"/register", object{"email": email, "username": fmt.Sprint("other", i), "password": good, "password_repeat": good}).want(t, email, 200, "registered")
	}
	for _, name := range []string{"ADA", "Ada", " ada ", "\uff41\uff44\uff41", "\uff21\uff24\uff21", "a\u1d48a"} {
		b.post(api+"/register", object{"username": name, "password": good, "password_repeat": good}).want(t, name, 200, "registered")
	}
	for _, name := range []string{"\u0430da", "ad\u0430", "a\u200bda", "a\u00adda", "ad\u0301a\u0301\u0327", "ada\u202e", "a.da", "a-da", "1ada", "\u0661da", "a da", "ada\x00"} {
		b.post(api+"/register", object{"username": name, "password": good, "password_repeat": good}).want(t, fmt.Sprintf("%+q", name), 400, "*")
	}
	s.flush(t, "username", "flushed")
	if n := s.rows(t, `_user`); n != 2 {
		t.Errorf("%d accounts, want Ada's and that of the flush", n)
	}
	if n := len(s.inbox.to("ada@example.com")); n < 5 {
		t.Errorf("%d mails to the owner", n)
	}
	// A plus is a part of the address like others.
	s.register(t, "ada+tag@example.com", "username", "plus")
	s.inbox.wait(t, "ada+tag@example.com", 1)
	for _, name := range []string{"ADA", "\uff21da"} {
		b.post(api+"/login", object{"email_or_username": name, "password": good}).want(t, "login as "+name, 200, "*")
	}
}

// What users say about themselves is text in a mail, not a template.
func TestA17_TemplatesInUserFields(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{})
	s.addUser(t, "ada@example.com")
	const evil = `{{.URL}}{{template "x"}}<a href="https://evil.example">win</a><script>x</script>${7*7}%0a`
	me := s.as(t, s.login(t, "ada@example.com")).with("User-Agent", evil)
	s.exec(t, `UPDATE _user SET username = ? WHERE email = 'ada@example.com'`, evil)
	me.post(api+"/change_password", object{"old_password": good, "new_password": good}).want(t, "change", 200, "*")
	m := s.inbox.about(t, "ada@example.com", "was changed", 1)
	if !strings.Contains(m.Text, `{{.URL}}{{template "x"}}<a href=`) {
		t.Errorf("the device is not as it was in %q", m.Text)
	}
	if strings.Contains(m.HTML, "<script") || strings.Contains(m.HTML, `<a href="https://evil`) || !strings.Contains(m.HTML, "{{.URL}}") {
		t.Errorf("HTML %q", m.HTML)
	}
}

// One address, a verified owner of it and many who want it: at most one
// account has it in the end, and nobody else has a link that works.
func TestA19_AllWaysToOneAddress(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{Limits: wideLimits()})
	for round := range 6 {
		want := fmt.Sprintf("want%d@example.com", round)
		var links []string
		for i := range 3 {
			email := fmt.Sprintf("c%d-%d@example.com", round, i)
			s.addUser(t, email)
			s.as(t, s.login(t, email)).post(api+"/change_email", object{"new_email": want}).want(t, "change", 200, "*")
			links = append(links, s.link(t, s.inbox.wait(t, want, len(links)+1)))
		}
		for range 3 {
			s.register(t, want)
			links = append(links, s.link(t, s.inbox.wait(t, want, len(links)+1)))
		}
		b := s.browser(t)
		got := parallel(len(links)+1, func(i int) reply {
			if i == len(links) {
				return b.post(api+"/register", object{"email": want, "password": good, "password_repeat": good})
			}
			return b.form(links[i])
		})
		if got[200] != 2 || got[400]+got[409] != len(links)-1 {
			t.Errorf("statuses %v", got)
		}
		if n := s.rows(t, `_user WHERE email = ?`, want); n != 1 {
			t.Errorf("%d owners", n)
		}
		for _, link := range links {
			if r := b.form(link); r.status != 400 && r.status != 409 {
				t.Errorf("a link afterwards: %d", r.status)
			}
		}
	}
}

// Address, password and a reset of one account at the same time: each happens
// whole or not at all, and what was asked for by the old address is over.
func TestA19_OneAccountAtOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t, auth.Config{OTP: true, Limits: wideLimits()})
	for round := range 8 {
		old, next := fmt.Sprintf("old%d@example.com", round), fmt.Sprintf("new%d@example.com", round)
		id := newAccount(t, s, old)
		tokens := s.login(t, old)
		me, b := s.as(t, tokens), s.browser(t)
		me.post(api+"/change_email", object{"new_email": next}).want(t, "request", 200, "*")
		link := s.link(t, s.inbox.wait(t, next, 1))
		b.post(api+"/reset_password/request", object{"email": old}).want(t, "request", 200, "*")
		secret := token(t, s.inbox.about(t, old, "password", 1))
		b.post(api+"/otp/request", object{"email": old}).want(t, "request", 200, "*")
		code := otpCode(t, s.inbox.about(t, old, "code", 1))
		var status [4]int
		parallel(4, func(i int) (r reply) {
			switch i {
			case 0:
				r = b.form(link)
			case 1:
				r = b.post(resetUpdate, object{"password": "Reset.good.1", "password_repeat": "Reset.good.1", "password_reset_token": secret})
			case 2:
				r = me.post(api+"/change_password", object{"old_password": good, "new_password": "Changed.good.1"})
			case 3:
				r = b.post(api+"/otp/login", object{"email": old, "code": code})
			}
			status[i] = r.status
			return r
		})
		changed, reset, password := status[0] == 200, status[1] == 200, status[2] == 200
		for i, ok := range [][]int{{200, 400, 409}, {200, 400}, {200, 400, 401}, {200, 401}} {
			if !slices.Contains(ok, status[i]) {
				t.Errorf("act %d: %d", i, status[i])
			}
		}
		if !changed && !reset && !password {
			t.Errorf("nothing was done: %v", status)
		}
		email := old
		if changed {
			email = next
		}
		for p, want := range map[string]bool{"Reset.good.1": reset, "Changed.good.1": password && !reset, good: !reset && !password} {
			// When both were done, the later one counts, and nobody knows which that was.
			if got := s.tryLogin(t, email, p) == 200; got != want && !(reset && password) {
				t.Errorf("%v: login with %s: %t", status, p, got)
			}
		}
		if got := s.rows(t, `_one_time WHERE user = ?`, id[:]); got != 0 && (changed || reset || password) {
			t.Errorf("%v: %d tokens are left", status, got)
		}
		if reset {
			b.post(api+"/refresh", object{"refresh_token": tokens.RefreshToken}).want(t, "session from before the reset", 401, "")
		}
	}
}
