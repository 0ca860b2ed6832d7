package mail_test

import (
	"log/slog"
	"mime"
	netmail "net/mail"
	"slices"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/auth/mail"
)

// None of these reaches the server, which would otherwise see a second
// recipient, header or command.
func TestA15_AddressesAndLinesRefused(t *testing.T) {
	t.Parallel()
	s := &server{starttls: true}
	s.start(t)
	mailers := map[string]auth.Mailer{"SMTP": newSMTP(t, s, nil), "log": mail.NewLog(slog.New(slog.DiscardHandler))}
	bad := map[string]auth.Message{
		"empty":               {To: ""},
		"two recipients":      {To: "a@example.com, b@example.com"},
		"semicolon":           {To: "a@example.com;b@example.com"},
		"name":                {To: "A <a@example.com>"},
		"brackets":            {To: "<a@example.com>"},
		"comment":             {To: "a@example.com (x)"},
		"group":               {To: "g: a@example.com;"},
		"spaces":              {To: " a@example.com"},
		"CR LF":               {To: "a@example.com\r\nBcc: b@example.com"},
		"LF":                  {To: "a@example.com\nRCPT TO:<b@example.com>"},
		"CR":                  {To: "a@example.com\r"},
		"tab":                 {To: "a@example.com\t"},
		"NUL":                 {To: "a@example.com\x00"},
		"quoted":              {To: `"a b"@example.com`},
		"quoted bracket":      {To: `"a> NOTIFY=SUCCESS <b@example.org"@example.com`},
		"quoted, needlessly":  {To: `"a"@example.com`},
		"route":               {To: "@example.org:a@example.com"},
		"address literal":     {To: "a@[127.0.0.1]"},
		"line separator":      {To: "a\u2028b@example.com"},
		"not UTF-8":           {To: "a\xff@example.com"},
		"long":                {To: strings.Repeat("a", 250) + "@example.com"},
		"subject, CR LF":      {To: "a@example.com", Subject: "x\r\nBcc: b@example.com"},
		"subject, LF":         {To: "a@example.com", Subject: "x\nBcc: b@example.com"},
		"subject, CR":         {To: "a@example.com", Subject: "x\rBcc: b@example.com"},
		"subject, empty line": {To: "a@example.com", Subject: "x\r\n\r\nbody"},
		"subject, NUL":        {To: "a@example.com", Subject: "x\x00"},
		"subject, not UTF-8":  {To: "a@example.com", Subject: "x\xff"},
		"subject without end": {To: "a@example.com", Subject: strings.Repeat("x", 2000)},
		"body without end":    {To: "a@example.com", Text: strings.Repeat("x", 2<<20)},
		"both without end":    {To: "a@example.com", Text: strings.Repeat("x", 600<<10), HTML: strings.Repeat("x", 600<<10)},
		"two without a comma": {To: "a@example.com b@example.com"},
	}
	for name, m := range bad {
		for kind, mailer := range mailers {
			if err := mailer.Send(t.Context(), m); !isPermanent(err) {
				t.Errorf("%s by %s: got %v, want a permanent error", name, kind, err)
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.verbs) > 0 {
		t.Errorf("the server heard %q", s.verbs)
	}
}

// Everything else arrives as it was sent, with exactly one recipient.
func TestA15_HeadersIntact(t *testing.T) {
	t.Parallel()
	recipients := []string{
		"a@example.com", "a+b@example.com", "o'neil@example.com", "a%b@example.com", "-a@example.com", "üser@exämple.com",
		strings.Repeat("a", 64) + "@" + strings.Repeat("long.", 30) + "example.com",
	}
	subjects := []string{
		"", "Your code", "a\tb", "tabs\t\t\tand  spaces ", " x", "<b>bold</b> <a@example.com>, c@example.com; d",
		"Grüße, 世界 👋", strings.Repeat("ü", 300), strings.Repeat("x", 900), strings.Repeat("word ", 150) + ".",
		"a" + strings.Repeat(" ", 300) + strings.Repeat("x", 80), "a " + strings.Repeat(" ", 70) + strings.Repeat("x ", 80) + "y",
		"=?utf-8?q?Bcc:=0D=0Ax?=", "x =?utf-8?b?Cg==?= y", "To: b@example.com", "\x01\x1b[31m", "%0d%0aBcc: b@example.com", `"quoted\"`,
	}
	type mailTo struct{ to, subject string }
	var all []mailTo
	for _, to := range recipients {
		all = append(all, mailTo{to, "Your code"})
	}
	for _, subject := range subjects {
		all = append(all, mailTo{"a@example.com", subject})
	}
	s := &server{starttls: true}
	s.start(t)
	m := newSMTP(t, s, nil)
	for i, tt := range all {
		if err := m.Send(t.Context(), auth.Message{To: tt.to, Subject: tt.subject, Text: "From here\n"}); err != nil {
			t.Errorf("%q, %q: %v", tt.to, tt.subject, err)
			return
		}
		s.mu.Lock()
		got := s.received[i]
		s.mu.Unlock()
		if want := []string{"TO:<" + tt.to + ">"}; !slices.Equal(got.to, want) {
			t.Errorf("RCPT %q, want %q", got.to, want)
		}
		checkHeaders(t, got.data, tt.to, tt.subject)
	}
}

func checkHeaders(t *testing.T, data, to, subject string) {
	t.Helper()
	for line := range strings.SplitSeq(data, "\n") {
		if len(line) > 300 || line != "" && strings.TrimSpace(line) == "" {
			t.Errorf("a line of %d bytes: %.80q", len(line), line)
		}
	}
	msg, err := netmail.ReadMessage(strings.NewReader(data))
	if err != nil {
		t.Errorf("%q: %v", subject, err)
		return
	}
	list, err := msg.Header.AddressList("To")
	if err != nil || len(list) != 1 || list[0].Address != to || list[0].Name != "" {
		t.Errorf("To: %v, %v, want %s alone", list, err, to)
	}
	decoded, err := new(mime.WordDecoder).DecodeHeader(msg.Header.Get("Subject"))
	if err != nil || decoded != subject {
		t.Errorf("Subject: %q, %v, want %q", decoded, err, subject)
	}
	want := []string{"Auto-Submitted", "Content-Transfer-Encoding", "Content-Type", "Date", "From", "Message-Id", "Mime-Version", "Subject", "To"}
	var names []string
	for name, values := range msg.Header {
		names = append(names, name)
		if len(values) != 1 {
			t.Errorf("%s: %q", name, values)
		}
	}
	if slices.Sort(names); !slices.Equal(names, want) {
		t.Errorf("headers %q, want %q", names, want)
	}
}
