package auth

import (
	"bytes"
	"html"
	"io/fs"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"
	"unicode/utf8"
)

func parsed(t *testing.T, override fs.FS) *templates {
	t.Helper()
	ts, err := parseTemplates(override)
	if err != nil {
		t.Fatal(err)
	}
	return ts
}

func rendered(t *testing.T, ts *templates, kind mailKind, data mailData) Message {
	t.Helper()
	m, err := ts.render(kind, data)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func realData() mailData {
	return mailData{
		AppName:  "Garden & Sons",
		SiteURL:  "https://garden.example",
		Email:    "user@example.com",
		Username: "user",
		URL:      "https://garden.example/api/auth/v1/verify_email/confirm/tok-EN_1?redirect_uri=%2Fhome&x=y",
		Token:    "tok-EN_1",
		Code:     "A1B2C3",
		Device:   "Firefox on Linux",
		Address:  "192.0.2.7",
		Minutes:  24 * 60,
		Time:     time.Date(2031, 5, 4, 13, 2, 1, 0, time.FixedZone("", 3600)),
	}
}

func TestBuiltinTemplates(t *testing.T) {
	t.Parallel()
	ts := parsed(t, nil)
	link := realData().URL
	inText := map[mailKind][]string{
		mailVerifyEmail:       {link, "24 hours"},
		mailChangeEmail:       {link, "24 hours", "user@example.com"},
		mailResetPassword:     {link, "24 hours"},
		mailOTP:               {"\n  A1B2C3\n", "24 hours"},
		mailRegisteredAlready: {link},
		mailEmailChanged:      {link, "4 May 2031, 12:02 UTC"},
		mailPasswordChanged:   {link, "4 May 2031, 12:02 UTC", "Firefox on Linux", "192.0.2.7"},
		mailNewSignIn:         {link, "4 May 2031, 12:02 UTC", "Firefox on Linux", "192.0.2.7"},
		mailMFAChanged:        {link, "4 May 2031, 12:02 UTC"},
		mailIdentityChanged:   {link, "4 May 2031, 12:02 UTC"},
	}
	anchor := regexp.MustCompile(`<a href="([^"]*)"[^>]*>([^<]*)</a>`)
	for _, kind := range mailKinds {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			m := rendered(t, ts, kind, realData())
			if m.To != "user@example.com" {
				t.Errorf("To is %s", m.To)
			}
			if !strings.Contains(m.Subject, "Garden & Sons") {
				t.Errorf("the subject is %q", m.Subject)
			}
			for _, want := range inText[kind] {
				if !strings.Contains(m.Text, want) {
					t.Errorf("%q is not in the text\n%s", want, m.Text)
				}
				if !strings.Contains(html.UnescapeString(m.HTML), strings.TrimSpace(want)) {
					t.Errorf("%q is not in the HTML\n%s", want, m.HTML)
				}
			}
			if !strings.HasPrefix(m.Text, "Hello,\n") || strings.Contains(m.Text, "\n\n\n") {
				t.Errorf("the text is laid out badly\n%q", m.Text)
			}
			links := anchor.FindAllStringSubmatch(m.HTML, -1)
			if len(links) == 0 {
				t.Error("no links in the HTML")
			}
			for _, l := range links {
				if html.UnescapeString(l[1]) != html.UnescapeString(l[2]) {
					t.Errorf("the link to %s says %s", l[1], l[2])
				}
			}
			for _, remote := range []string{"<img", "<script", "<link", "src=", "url("} {
				if strings.Contains(m.HTML, remote) {
					t.Errorf("the HTML has %s", remote)
				}
			}
		})
	}
}

// Without a page of its own a notice points at the site, and otp shows the code alone.
func TestBuiltinTemplatesWithoutURL(t *testing.T) {
	t.Parallel()
	ts := parsed(t, nil)
	data := realData()
	data.URL, data.Device, data.Address = "", "", ""
	for _, kind := range mailKinds[3:] {
		m := rendered(t, ts, kind, data)
		if !strings.Contains(m.Text, "https://garden.example\n") || strings.Contains(m.Text, "Device") || strings.Contains(m.Text, "open this link") {
			t.Errorf("%s:\n%s", kind, m.Text)
		}
		if strings.Contains(m.HTML, `href=""`) || strings.Contains(m.HTML, "Device") {
			t.Errorf("%s:\n%s", kind, m.HTML)
		}
	}
}

func TestTemplateOverride(t *testing.T) {
	t.Parallel()
	ts := parsed(t, fstest.MapFS{
		"otp.txt":            {Data: []byte("\ufeffSubject: {{.Code}} is it\r\n\r\n{{.Code}} for {{.Username}}\r\n")},
		"otp.html":           {Data: []byte(" \n")},
		"reset_password.txt": {Data: []byte("Subject: new\n\n{{.SiteURL}}/_/auth/reset_password/update/{{.Token}}\n")},
		".DS_Store":          {Data: []byte("x")},
	})
	m := rendered(t, ts, mailOTP, realData())
	if want := (Message{To: "user@example.com", Subject: "A1B2C3 is it", Text: "A1B2C3 for user\n"}); m != want {
		t.Errorf("got %q, want %q", m, want)
	}
	m = rendered(t, ts, mailResetPassword, realData())
	if want := "https://garden.example/_/auth/reset_password/update/tok-EN_1\n"; m.Text != want {
		t.Errorf("got %q, want %q", m.Text, want)
	}
	if !strings.Contains(m.HTML, "Hello") {
		t.Error("the built-in HTML is gone")
	}
	if m = rendered(t, ts, mailNewSignIn, realData()); !strings.Contains(m.Text, "Hello") {
		t.Error("the built-in text of another mail is gone")
	}
	if _, err := ts.render("other", realData()); err == nil {
		t.Error("a mail of an unknown kind")
	}
}

func TestParseTemplatesReportsEveryMistake(t *testing.T) {
	t.Parallel()
	_, err := parseTemplates(fstest.MapFS{
		"otp.txt":                 {Data: []byte("Subject: code\n\nno code here\n")},
		"otp.html":                {Data: []byte("<p>none {{.URL}}</p>")},
		"verify_email.txt":        {Data: []byte("Subject: x\n\nline 3\n{{.VERIFICATION_URL}}\n")},
		"verify_email.html":       {Data: []byte("<p>\n{{VERIFICATION_URL}}")},
		"change_email.txt":        {Data: []byte("Subject: x\n\n{{/* .URL */}} .Token\n")},
		"change_email.html":       {Data: []byte("<a href='{{.URL}}")},
		"reset_password.txt":      {Data: []byte("Hello\n\n{{.URL}}\n")},
		"registered_already.txt":  {Data: []byte("Subject: x\ny\n")},
		"email_changed.txt":       {Data: []byte("Subject: x\n\n \n")},
		"password_changed.txt":    {Data: []byte("Subject: {{\"\\n\"}}\n\ntext\n")},
		"new_sign_in.txt":         {Data: []byte("Subject: {{.Nope}}\n\n{{if}}\n")},
		"mfa_changed.txt":         {Data: []byte("")},
		"verify.txt":              {Data: []byte("Subject: x\n\n{{.URL}}\n")},
		"otp.html.txt":            {Data: []byte("Subject: x\n\n{{.Code}}\n")},
		"sub/otp.txt":             {Data: []byte("Subject: x\n\n{{.Code}}\n")},
		"new_sign_in":             {Data: []byte("")},
		"password_changed.md.txt": {Data: []byte("")},
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"otp.txt: it does not show {{.Code}}",
		"otp.html: it does not show {{.Code}}",
		"verify_email.txt:4:",
		"VERIFICATION_URL",
		"verify_email.html:2:",
		"change_email.txt: it shows neither {{.URL}} nor {{.Token}}",
		"change_email.html",
		`reset_password.txt: the first line is not "Subject: ..."`,
		"registered_already.txt: the second line is not empty",
		"email_changed.txt: there is no text",
		"password_changed.txt: the subject is empty",
		"new_sign_in.txt:3: missing value for if",
		"mfa_changed.txt: the first line",
		"unknown file verify.txt",
		"unknown file otp.html.txt",
		"unknown file sub ",
		"unknown file new_sign_in ",
		"unknown file password_changed.md.txt",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in\n%v", want, err)
		}
	}
}

// Whatever stands in the fields that strangers fill is text and nothing else.
func TestA17_UserFieldsAreText(t *testing.T) {
	t.Parallel()
	every := fstest.MapFS{
		"otp.txt": {Data: []byte("Subject: {{.AppName}} {{.Username}}\n\nCode {{.Code}}\nUser {{.Username}}\nMail {{.Email}}\n" +
			"Device {{.Device}}\nAddress {{.Address}}\nNext {{.RedirectURI}}\nEnd\n")},
		"otp.html": {Data: []byte(`<p title="{{.Username}}">{{.Code}} {{.Username}} {{.Email}} {{.Device}} {{.Address}} {{.RedirectURI}}</p><a href="{{.RedirectURI}}">x</a>`)},
	}
	ts := parsed(t, every)
	for _, evil := range []string{
		"{{.SiteURL}}", `{{template "otp.txt" .}}`, "{{", "}}", "${7*7}", "{% raw %}",
		"<script>alert(1)</script>", `"><img src=x onerror=alert(1)>`, "javascript:alert(1)", "<!--", "&lt;b&gt;",
		"a\nCode 000000", "a\r\n\r\nCode 000000", "a\rb", "a\u2028b", "a\u2029b", "a\u0085b", "a\vb\fc", "a\x00b", "\x1b[2J", "\u202egnp.exe", "a\xffb",
	} {
		data := realData()
		data.Username, data.Email, data.Device, data.Address, data.RedirectURI = evil, evil, evil, evil, evil
		m := rendered(t, ts, mailOTP, data)

		lines := strings.Split(m.Text, "\n")
		want := []string{"Code A1B2C3", "User ", "Mail ", "Device ", "Address ", "Next ", "End", ""}
		if len(lines) != len(want) {
			t.Errorf("%q makes the text\n%q", evil, m.Text)
			continue
		}
		for i := range want {
			if !strings.HasPrefix(lines[i], want[i]) {
				t.Errorf("%q makes the line %q, want %q", evil, lines[i], want[i])
			}
		}
		visible := utf8.ValidString(evil) && !strings.ContainsAny(evil, "\n\r\v\f\x00\x1b\u0085\u2028\u2029\u202e")
		if visible && lines[1] != "User "+evil {
			t.Errorf("%q became %q", evil, lines[1])
		}
		for _, r := range m.Text + m.Subject + m.HTML {
			if r < ' ' && r != '\n' || strings.ContainsRune("\u0085\u2028\u2029\u202e", r) {
				t.Errorf("%q leaves %q", evil, r)
			}
		}
		if n := strings.Count(m.HTML, "<"); n != 4 {
			t.Errorf("%q makes %d tags of 4\n%s", evil, n, m.HTML)
		}
		if strings.Contains(m.HTML, `href="javascript:`) || strings.Count(m.HTML, `"`) != 4 {
			t.Errorf("%q makes\n%s", evil, m.HTML)
		}
		if visible && !strings.Contains(html.UnescapeString(m.HTML), evil) {
			t.Errorf("%q is not in\n%s", evil, m.HTML)
		}
	}
}

// The built-in mails to addresses that nobody has confirmed carry no words of a stranger.
func TestA17_UnconfirmedAddressesGetNoStrangersWords(t *testing.T) {
	t.Parallel()
	ts := parsed(t, nil)
	data := realData()
	data.Username, data.Device, data.RedirectURI = "STRANGER", "STRANGER", "STRANGER"
	for _, kind := range []mailKind{mailVerifyEmail, mailChangeEmail, mailResetPassword, mailOTP, mailRegisteredAlready} {
		if m := rendered(t, ts, kind, data); strings.Contains(m.Subject+m.Text+m.HTML, "STRANGER") {
			t.Errorf("%s:\n%s", kind, m.Text)
		}
	}
	// And where they appear they are short.
	data.Device = strings.Repeat("ü", 5000)
	if m := rendered(t, ts, mailNewSignIn, data); len(m.Text) > 1000 || !utf8.ValidString(m.Text) {
		t.Errorf("%d bytes", len(m.Text))
	}
}

func TestA15_SubjectIsOneLine(t *testing.T) {
	t.Parallel()
	ts := parsed(t, fstest.MapFS{
		"otp.txt": {Data: []byte("Subject: {{.AppName}}{{\"\\r\\nX-Y: z\"}} {{.Username}}\n\n{{.Code}}\n")},
	})
	for _, name := range []string{"x\r\nBcc: b@example.com", "x\nBcc: b@example.com", "x\rBcc", "x\x00", "x\u2028y", strings.Repeat("界", 500), "\xff"} {
		data := realData()
		data.AppName, data.Username = name, name
		m := rendered(t, ts, mailOTP, data)
		if strings.ContainsAny(m.Subject, "\r\n\x00\u2028") || len(m.Subject) > 200 || !utf8.ValidString(m.Subject) || m.Subject == "" {
			t.Errorf("%q makes the subject %q of %d bytes", name, m.Subject, len(m.Subject))
		}
	}
}

func TestValidFor(t *testing.T) {
	t.Parallel()
	for minutes, want := range map[int]string{
		0: "0 minutes", 1: "1 minute", 15: "15 minutes", 60: "1 hour", 90: "90 minutes", 1440: "24 hours", 2880: "2 days", 2940: "49 hours", 10080: "7 days",
	} {
		if got := (mailData{Minutes: minutes}).ValidFor(); got != want {
			t.Errorf("%d: %s, want %s", minutes, got, want)
		}
	}
}

func TestTemplatesAreConcurrent(t *testing.T) {
	t.Parallel()
	ts := parsed(t, nil)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for _, kind := range mailKinds {
				if _, err := ts.render(kind, realData()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// Every built-in file belongs to a kind.
func TestBuiltinTemplateFiles(t *testing.T) {
	t.Parallel()
	files, err := fs.Glob(builtinTemplates, "templates/*")
	if err != nil || len(files) != 2*len(mailKinds) {
		t.Errorf("%d files for %d kinds, %v", len(files), len(mailKinds), err)
	}
	for _, name := range files {
		b, err := fs.ReadFile(builtinTemplates, name)
		if err != nil || bytes.Contains(b, []byte("\r")) || bytes.Contains(b, []byte(" \n")) {
			t.Errorf("%s: %v, or spaces at the end of a line", name, err)
		}
	}
}
