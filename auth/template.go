package auth

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	htmltemplate "html/template"
	"io"
	"io/fs"
	"slices"
	"strings"
	texttemplate "text/template"
	"time"
	"unicode"
	"unicode/utf8"
)

// The texts of the mails.
//
// Every kind of mail has two files: KIND.txt, a text/template whose first line is
// "Subject: ..." and whose second line is empty, and KIND.html, an html/template. The
// built-in ones are in the directory templates; an application replaces them file by file.
// An empty KIND.html means that this mail has no HTML part.
//
// A template written for TrailBase is carried over by renaming its variables:
//
//	APP_NAME          .AppName
//	SITE_URL          .SiteURL
//	EMAIL             .Email
//	VERIFICATION_URL  .URL
//	TOKEN             .Token
//	CODE              .Code in otp, .Token in verify_email, change_email and reset_password
//	REDIRECT_URI      .RedirectURI
//
// Whoever registers or signs in chooses .Username, .Device and the like, and the mail may go
// to somebody else. They reach a template without control characters, so that they cannot
// begin a line of their own, and html/template escapes them for the place they stand in. The
// built-in mails that go to an address before its owner has confirmed it show neither, since
// even plain text can hold an invitation to a foreign site.

//go:embed templates
var builtinTemplates embed.FS

// A mailKind is the name of a mail's files without their extension.
type mailKind string

const (
	mailVerifyEmail       mailKind = "verify_email"       // needs .URL or .Token
	mailChangeEmail       mailKind = "change_email"       // to the new address; needs .URL or .Token
	mailResetPassword     mailKind = "reset_password"     // needs .URL or .Token
	mailOTP               mailKind = "otp"                // needs .Code
	mailRegisteredAlready mailKind = "registered_already" // somebody registers an address that has an account
	mailEmailChanged      mailKind = "email_changed"      // to the old address
	mailPasswordChanged   mailKind = "password_changed"
	mailNewSignIn         mailKind = "new_sign_in"
	mailMFAChanged        mailKind = "mfa_changed"
	mailRecoveryCodeUsed  mailKind = "recovery_code_used"
	mailIdentityChanged   mailKind = "identity_changed" // linked or unlinked
)

var mailKinds = [...]mailKind{
	mailVerifyEmail, mailChangeEmail, mailResetPassword, mailOTP,
	mailRegisteredAlready, mailEmailChanged, mailPasswordChanged, mailNewSignIn, mailMFAChanged, mailRecoveryCodeUsed,
	mailIdentityChanged,
}

// mailData is what a template sees. Every string is one line of plain text by then.
type mailData struct {
	AppName     string
	SiteURL     string
	Email       string // the recipient
	Username    string
	URL         string // what the mail asks to open: the confirmation, the new password; optional in notices and otp
	Token       string // the secret in URL, for templates that build their own link
	Code        string // the code of otp
	RedirectURI string
	Device      string // who did it, in notices
	Address     string // from where, in notices
	Minutes     int    // how long URL or Code works
	Remaining   int    // recovery codes that are left, in recovery_code_used
	Time        time.Time
}

// ValidFor is Minutes in words: "15 minutes", "1 hour", "2 days".
func (d mailData) ValidFor() string {
	n, unit := d.Minutes, "minute"
	switch {
	case n >= 2*24*60 && n%(24*60) == 0:
		n, unit = n/(24*60), "day"
	case n >= 60 && n%60 == 0:
		n, unit = n/60, "hour"
	}
	if n != 1 {
		unit += "s"
	}
	return fmt.Sprintf("%d %s", n, unit)
}

// clean makes every string fit for a line of a mail.
func (d mailData) clean() mailData {
	for _, s := range []*string{&d.AppName, &d.SiteURL, &d.Email, &d.Username, &d.URL, &d.Token, &d.Code, &d.RedirectURI, &d.Device, &d.Address} {
		*s = oneLine(*s)
	}
	for _, s := range []*string{&d.Username, &d.Device, &d.Address} {
		*s = truncate(*s, maxUserText)
	}
	return d
}

const (
	maxSubject  = 200 // bytes
	maxUserText = 100 // bytes of a user name, a device, an address
)

// templates holds the parsed mails. It is safe for concurrent use.
type templates struct {
	mails map[mailKind]mailTemplate
}

type mailTemplate struct {
	subject, text *texttemplate.Template
	html          *htmltemplate.Template // nil: no HTML part
}

// parseTemplates reads the templates, those of override first and the built-in ones where
// override has none. override may be nil. It reports every mistake at once: files that are no
// template's (hidden ones aside), files that do not parse, do not run with sample data, or lack
// what their mail is sent for.
func parseTemplates(override fs.FS) (*templates, error) {
	builtin, err := fs.Sub(builtinTemplates, "templates")
	if err != nil {
		return nil, fmt.Errorf("opening the built-in mail templates: %w", err)
	}
	read := func(name string) (string, error) {
		if override != nil {
			b, err := fs.ReadFile(override, name)
			if !errors.Is(err, fs.ErrNotExist) {
				return string(b), err
			}
		}
		b, err := fs.ReadFile(builtin, name)
		return string(b), err
	}

	var errs []error
	if override != nil {
		errs = append(errs, checkFileNames(override)...)
	}
	t := &templates{mails: make(map[mailKind]mailTemplate, len(mailKinds))}
	for _, kind := range mailKinds {
		var m mailTemplate
		name := string(kind) + ".txt"
		src, err := read(name)
		if err == nil {
			m.subject, m.text, err = parseText(kind, name, src)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("reading the mail template %s: %w", name, err))
		}
		name = string(kind) + ".html"
		src, err = read(name)
		if err == nil {
			m.html, err = parseHTML(kind, name, src)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("reading the mail template %s: %w", name, err))
		}
		t.mails[kind] = m
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return t, nil
}

// render makes the mail of a kind, addressed to data.Email.
func (t *templates) render(kind mailKind, data mailData) (Message, error) {
	m, ok := t.mails[kind]
	if !ok {
		return Message{}, fmt.Errorf("rendering a mail: unknown kind %q", kind)
	}
	msg := Message{To: data.Email}
	data = data.clean()
	var err error
	if msg.Subject, err = execute(m.subject, data); err != nil {
		return Message{}, fmt.Errorf("rendering a mail's subject: %w", err)
	}
	msg.Subject = truncate(oneLine(msg.Subject), maxSubject)
	if msg.Text, err = execute(m.text, data); err != nil {
		return Message{}, fmt.Errorf("rendering a mail's text: %w", err)
	}
	msg.Text = strings.TrimLeft(msg.Text, "\n")
	if m.html != nil {
		if msg.HTML, err = execute(m.html, data); err != nil {
			return Message{}, fmt.Errorf("rendering a mail's HTML: %w", err)
		}
	}
	return msg, nil
}

func checkFileNames(override fs.FS) []error {
	entries, err := fs.ReadDir(override, ".")
	if err != nil {
		return []error{fmt.Errorf("listing the mail templates: %w", err)}
	}
	var errs []error
	for _, e := range entries {
		base, isText := strings.CutSuffix(e.Name(), ".txt")
		base, isHTML := strings.CutSuffix(base, ".html")
		known := isText != isHTML && slices.Contains(mailKinds[:], mailKind(base))
		if !known && !strings.HasPrefix(e.Name(), ".") {
			errs = append(errs, fmt.Errorf("reading the mail templates: unknown file %s (the kinds are %s, each with .txt and .html)", e.Name(), kindList()))
		}
	}
	return errs
}

func parseText(kind mailKind, name, src string) (subject, text *texttemplate.Template, err error) {
	first, rest, _ := strings.Cut(normalize(src), "\n")
	head, ok := strings.CutPrefix(first, "Subject:")
	if !ok {
		return nil, nil, errors.New(`the first line is not "Subject: ..."`)
	}
	blank, body, _ := strings.Cut(rest, "\n")
	if strings.TrimSpace(blank) != "" {
		return nil, nil, errors.New("the second line is not empty")
	}
	if strings.TrimSpace(body) == "" {
		return nil, nil, errors.New("there is no text after the subject")
	}
	subject, headErr := texttemplate.New(name).Parse(head)
	// The two empty lines make the line numbers of errors those of the file.
	text, bodyErr := texttemplate.New(name).Parse("\n\n" + body)
	if err := errors.Join(headErr, bodyErr); err != nil {
		return nil, nil, err
	}
	out, headErr := execute(subject, sampleData())
	if headErr == nil && oneLine(out) == "" {
		headErr = errors.New("the subject is empty")
	}
	return subject, text, errors.Join(headErr, tryBody(kind, text))
}

func parseHTML(kind mailKind, name, src string) (*htmltemplate.Template, error) {
	src = normalize(src)
	if strings.TrimSpace(src) == "" {
		return nil, nil
	}
	t, err := htmltemplate.New(name).Parse(src)
	if err != nil {
		return nil, err
	}
	return t, tryBody(kind, t)
}

// tryBody runs a template once and looks for what the mail is sent for.
func tryBody(kind mailKind, t executor) error {
	out, err := execute(t, sampleData())
	if err != nil {
		return err
	}
	switch kind {
	case mailVerifyEmail, mailChangeEmail, mailResetPassword:
		if !strings.Contains(out, sampleURL) && !strings.Contains(out, sampleToken) {
			return errors.New("it shows neither {{.URL}} nor {{.Token}}")
		}
	case mailOTP:
		if !strings.Contains(out, sampleCode) {
			return errors.New("it does not show {{.Code}}")
		}
	}
	return nil
}

// Words that no template holds by chance and no escaping changes.
const (
	sampleURL   = "xsampleurlx"
	sampleToken = "xsampletokenx"
	sampleCode  = "XSAMPLECODEX"
)

func sampleData() mailData {
	return mailData{
		AppName:     "Example",
		SiteURL:     "https://app.example",
		Email:       "user@example.com",
		Username:    "user",
		URL:         "https://app.example/" + sampleURL,
		Token:       sampleToken,
		Code:        sampleCode,
		RedirectURI: "/welcome",
		Device:      "Firefox on Linux",
		Address:     "192.0.2.1",
		Minutes:     15,
		Remaining:   9,
		Time:        time.Unix(0, 0).UTC(),
	}
}

// An executor is a text or an HTML template.
type executor interface {
	Execute(w io.Writer, data any) error
}

func execute(t executor, data mailData) (string, error) {
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		return "", err
	}
	return b.String(), nil
}

// normalize drops what editors add: a byte order mark and carriage returns.
func normalize(src string) string {
	return strings.ReplaceAll(strings.TrimPrefix(src, "\ufeff"), "\r\n", "\n")
}

// oneLine replaces what could break a line or turn its direction by spaces, and bytes that are
// not UTF-8 by U+FFFD.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.In(r, unicode.Zl, unicode.Zp, unicode.Bidi_Control) {
			return ' '
		}
		return r
	}, s)
	return strings.TrimSpace(s)
}

// truncate cuts s to at most n bytes, between two characters.
func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	const ellipsis = "…"
	n -= len(ellipsis)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return strings.TrimSpace(s[:n]) + ellipsis
}

func kindList() string {
	names := make([]string, len(mailKinds))
	for i, k := range mailKinds {
		names[i] = string(k)
	}
	return strings.Join(names, ", ")
}
