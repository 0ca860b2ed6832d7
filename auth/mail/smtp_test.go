package mail_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	netmail "net/mail"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/auth/mail"
)

var hello = auth.Message{
	To:      "user@example.com",
	Subject: "Your code",
	Text:    "The code is\n\n.\n  A1B2C3\n",
	HTML:    "<p>The code is <b>A1B2C3</b> – bye</p>\n",
}

func newSMTP(t *testing.T, s *server, change func(*mail.SMTPConfig)) *mail.SMTP {
	t.Helper()
	cfg := mail.SMTPConfig{
		Host:      "127.0.0.1",
		Port:      s.port,
		TLSConfig: &tls.Config{RootCAs: s.roots, MinVersion: tls.VersionTLS12},
		From:      `"Example, Inc." <no-reply@app.example>`,
		LocalName: "client.test",
		Timeout:   2 * time.Minute,
	}
	if change != nil {
		change(&cfg)
	}
	m, err := mail.NewSMTP(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func withPassword(cfg *mail.SMTPConfig) { cfg.Username, cfg.Password = "app", "s3cret" }

func TestSMTPDelivers(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		server *server
		change func(*mail.SMTPConfig)
		tls    bool
		user   string
	}{
		"STARTTLS and password": {&server{starttls: true, auth: "LOGIN PLAIN"}, withPassword, true, "app"},
		"STARTTLS":              {&server{starttls: true}, nil, true, ""},
		"implicit TLS and password": {&server{implicit: true, auth: "PLAIN"}, func(c *mail.SMTPConfig) {
			withPassword(c)
			c.Encryption = mail.ImplicitTLS
		}, true, "app"},
		"in the clear": {&server{starttls: true}, func(c *mail.SMTPConfig) { c.Encryption = mail.None }, false, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.server.start(t)
			if err := newSMTP(t, tt.server, tt.change).Send(t.Context(), hello); err != nil {
				t.Fatal(err)
			}
			got := tt.server.only(t)
			if got.tls != tt.tls || got.user != tt.user {
				t.Errorf("TLS %t, user %q", got.tls, got.user)
			}
			if tt.user != "" && got.password != "s3cret" {
				t.Errorf("password %q", got.password)
			}
			if !strings.HasPrefix(got.from, "FROM:<no-reply@app.example>") {
				t.Errorf("MAIL %s", got.from)
			}
			if want := []string{"TO:<user@example.com>"}; !slices.Equal(got.to, want) {
				t.Errorf("RCPT %q, want %q", got.to, want)
			}
			if tt.tls && len(tt.server.clear) > 2 { // EHLO, STARTTLS
				t.Errorf("sent in the clear: %q", tt.server.clear)
			}
			checkHello(t, got.data)
		})
	}
}

// checkHello reads the message hello as a mail program does.
func checkHello(t *testing.T, data string) {
	t.Helper()
	msg, err := netmail.ReadMessage(strings.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	from, err := msg.Header.AddressList("From")
	if err != nil || len(from) != 1 || from[0].Name != "Example, Inc." || from[0].Address != "no-reply@app.example" {
		t.Errorf("From: %v, %v", from, err)
	}
	if date, err := msg.Header.Date(); err != nil || time.Since(date).Abs() > time.Minute {
		t.Errorf("Date: %v, %v", date, err)
	}
	if id := msg.Header.Get("Message-ID"); !strings.HasPrefix(id, "<") || !strings.HasSuffix(id, "@app.example>") || len(id) < 30 {
		t.Errorf("Message-ID: %s", id)
	}
	if got := msg.Header.Get("Auto-Submitted"); got != "auto-generated" {
		t.Errorf("Auto-Submitted: %s", got)
	}
	kind, params, err := mime.ParseMediaType(msg.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/alternative" {
		t.Fatalf("Content-Type: %s, %v", kind, err)
	}
	parts := multipart.NewReader(msg.Body, params["boundary"])
	for _, want := range []struct{ kind, body string }{{"text/plain", hello.Text}, {"text/html", hello.HTML}} {
		part, err := parts.NextPart()
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(part)
		if err != nil {
			t.Fatal(err)
		}
		if got := part.Header.Get("Content-Type"); !strings.HasPrefix(got, want.kind+";") {
			t.Errorf("a part is %s, want %s", got, want.kind)
		}
		if got := strings.ReplaceAll(string(body), "\r\n", "\n"); strings.TrimSpace(got) != strings.TrimSpace(want.body) {
			t.Errorf("%s is %q, want %q", want.kind, got, want.body)
		}
	}
	if _, err := parts.NextPart(); !errors.Is(err, io.EOF) {
		t.Errorf("a third part: %v", err)
	}
}

// Whoever sits between can hide the offer of STARTTLS or show another
// certificate. Neither gets a mail or a password out of us.
func TestSMTPDoesNotDowngrade(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		server *server
		change func(*mail.SMTPConfig)
	}{
		"STARTTLS is not offered": {&server{auth: "PLAIN"}, nil},
		"STARTTLS is refused":     {&server{starttls: true, auth: "PLAIN", answers: map[string]string{"STARTTLS": "454 not now"}}, nil},
		"foreign certificate":     {&server{starttls: true, auth: "PLAIN"}, func(c *mail.SMTPConfig) { c.TLSConfig = nil }},
		"other name":              {&server{starttls: true, auth: "PLAIN"}, func(c *mail.SMTPConfig) { c.TLSConfig.ServerName = "mail.example" }},
		"foreign certificate, implicit TLS": {&server{implicit: true, auth: "PLAIN"}, func(c *mail.SMTPConfig) {
			c.Encryption, c.TLSConfig = mail.ImplicitTLS, nil
		}},
		"no TLS on the TLS port": {&server{auth: "PLAIN"}, func(c *mail.SMTPConfig) { c.Encryption = mail.ImplicitTLS }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.server.start(t)
			err := newSMTP(t, tt.server, func(c *mail.SMTPConfig) {
				withPassword(c)
				if tt.change != nil {
					tt.change(c)
				}
			}).Send(t.Context(), hello)
			if err == nil {
				t.Fatal("no error")
			}
			if isPermanent(err) {
				t.Errorf("permanent: %v", err)
			}
			tt.server.mu.Lock()
			defer tt.server.mu.Unlock()
			for _, verb := range tt.server.verbs {
				if verb == "AUTH" || verb == "MAIL" || verb == "DATA" {
					t.Errorf("the client said %s", verb)
				}
			}
		})
	}
}

func TestSMTPErrors(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		event, answer string
		code          int // 0: not permanent
	}{
		"busy":                     {"GREETING", "421 come back", 0},
		"banned":                   {"GREETING", "554 not you", 0},
		"wrong password":           {"AUTH", "535 5.7.8 no", 0},
		"sender unknown":           {"MAIL", "550 5.7.1 no", 550},
		"not signed in":            {"MAIL", "530 5.7.0 sign in", 0},
		"recipient unknown":        {"RCPT", "550 5.1.1 no such user", 550},
		"recipient unknown, lines": {"RCPT", "550-no such\r\n550-user\r\n550 here", 550},
		"greylisted":               {"RCPT", "451 4.7.1 later", 0},
		"no data":                  {"DATA", "554 no", 554},
		"spam":                     {"BODY", "552 5.7.0 spam", 552},
		"disk full":                {"BODY", "452 4.3.1 full", 0},
		"nonsense":                 {"RCPT", "what?", 0},
		"long":                     {"RCPT", "550 " + strings.Repeat("no ", 5000), 550},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &server{starttls: true, auth: "PLAIN", answers: map[string]string{tt.event: tt.answer}}
			s.start(t)
			err := newSMTP(t, s, withPassword).Send(t.Context(), hello)
			if err == nil {
				t.Fatal("no error")
			}
			var p *mail.PermanentError
			if got := errors.As(err, &p); got != (tt.code != 0) || got && p.Code != tt.code {
				t.Errorf("permanent %t (%v)", got, err)
			}
			if isPermanent(err) != (tt.code != 0) {
				t.Errorf("interface and type disagree: %v", err)
			}
			if text := err.Error(); len(text) > 500 || strings.ContainsAny(text, "\r\n") || strings.Contains(text, "s3cret") {
				t.Errorf("the text of the error: %q", text)
			}
		})
	}
}

func isPermanent(err error) bool {
	var p interface{ Permanent() bool }
	return errors.As(err, &p) && p.Permanent()
}

func TestSMTPWithoutAuthOffer(t *testing.T) {
	t.Parallel()
	s := &server{starttls: true}
	s.start(t)
	if err := newSMTP(t, s, withPassword).Send(t.Context(), hello); err == nil || isPermanent(err) {
		t.Errorf("got %v, want an error that is not permanent", err)
	}
}

// What goes wrong after the server has taken the message is not an error: it
// would be sent twice.
func TestSMTPFailsAfterDelivery(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]*server{
		"dropped after the message": {starttls: true, drop: "BODY"},
		"dropped after QUIT":        {starttls: true, drop: "QUIT"},
		"QUIT refused":              {starttls: true, answers: map[string]string{"QUIT": "500 no"}},
		"QUIT hangs":                {starttls: true, hang: "QUIT"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s.start(t)
			if err := newSMTP(t, s, nil).Send(t.Context(), hello); err != nil {
				t.Error(err)
			}
			s.only(t)
		})
	}
}

func TestSMTPServerHangs(t *testing.T) {
	t.Parallel()
	for _, event := range []string{"GREETING", "EHLO", "STARTTLS", "AUTH", "MAIL", "DATA", "BODY"} {
		t.Run(event, func(t *testing.T) {
			t.Parallel()
			s := &server{starttls: true, auth: "PLAIN", hang: event}
			s.start(t)
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				<-s.hung
				cancel()
			}()
			if err := newSMTP(t, s, withPassword).Send(ctx, hello); !errors.Is(err, context.Canceled) || isPermanent(err) {
				t.Errorf("got %v, want %v", err, context.Canceled)
			}
		})
	}
}

func TestSMTPTimeout(t *testing.T) {
	t.Parallel()
	s := &server{starttls: true, hang: "GREETING"}
	s.start(t)
	m := newSMTP(t, s, func(c *mail.SMTPConfig) { c.Timeout = 50 * time.Millisecond })
	if err := m.Send(t.Context(), hello); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
	}
}

func TestSMTPEndlessAnswer(t *testing.T) {
	t.Parallel()
	s := &server{answers: map[string]string{"GREETING": "220 " + strings.Repeat("x", 1<<20)}}
	s.start(t)
	err := newSMTP(t, s, nil).Send(t.Context(), hello)
	if err == nil || !strings.Contains(err.Error(), "too much") {
		t.Errorf("got %v", err)
	}
}

func TestSMTPNobodyListens(t *testing.T) {
	t.Parallel()
	m := newSMTP(t, &server{port: 1}, nil)
	if err := m.Send(t.Context(), hello); err == nil || isPermanent(err) {
		t.Errorf("got %v, want an error that is not permanent", err)
	}
}

func TestNewSMTPReportsEveryMistake(t *testing.T) {
	t.Parallel()
	good := mail.SMTPConfig{Host: "mail.example", From: "a@app.example"}
	if _, err := mail.NewSMTP(good); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		change func(*mail.SMTPConfig)
		want   []string
	}{
		"zero":         {func(c *mail.SMTPConfig) { *c = mail.SMTPConfig{} }, []string{"the host", "the sender"}},
		"host:port":    {func(c *mail.SMTPConfig) { c.Host = "mail.example:25" }, []string{"the host"}},
		"socket":       {func(c *mail.SMTPConfig) { c.Host = "unix://socket" }, []string{"the host"}},
		"port":         {func(c *mail.SMTPConfig) { c.Port = 70000 }, []string{"the port"}},
		"encryption":   {func(c *mail.SMTPConfig) { c.Encryption = 7 }, []string{"the encryption"}},
		"far in clear": {func(c *mail.SMTPConfig) { c.Encryption = mail.None }, []string{"another host"}},
		"password in clear": {func(c *mail.SMTPConfig) { withPassword(c); c.Encryption = mail.None; c.AllowPlaintext = true },
			[]string{"the password"}},
		"half a password": {func(c *mail.SMTPConfig) { c.Username = "app" }, []string{"one is missing"}},
		"no verification": {func(c *mail.SMTPConfig) {
			c.TLSConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // the mistake under test
		}, []string{"skips the verification"}},
		"local name":  {func(c *mail.SMTPConfig) { c.LocalName = "a\r\nRSET" }, []string{"the local name"}},
		"timeout":     {func(c *mail.SMTPConfig) { c.Timeout = -1 }, []string{"the timeout"}},
		"two senders": {func(c *mail.SMTPConfig) { c.From = "a@app.example, b@app.example" }, []string{"the sender"}},
		"sender's line": {func(c *mail.SMTPConfig) { c.From = "A\r\nBcc: b@app.example <a@app.example>" },
			[]string{"the sender"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := good
			tt.change(&cfg)
			_, err := mail.NewSMTP(cfg)
			for _, want := range tt.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q", err, want)
				}
			}
		})
	}
	local := mail.SMTPConfig{Host: "localhost", From: "a@app.example", Encryption: mail.None}
	if _, err := mail.NewSMTP(local); err != nil {
		t.Error(err)
	}
}
