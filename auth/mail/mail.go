// Package mail delivers the messages of package auth: through an SMTP server
// ([SMTP]), through the sendmail program of the host ([Sendmail]), or, during
// development, into the log ([Log]). All three are an [auth.Mailer] and safe
// for concurrent use.
//
//	mailer, err := mail.NewSMTP(mail.SMTPConfig{
//		Host:     "smtp.example.com",
//		Username: "app",
//		Password: os.Getenv("SMTP_PASSWORD"),
//		From:     "Example <no-reply@example.com>",
//	})
//
// A message goes to exactly one address. Line breaks in an address or a
// subject are refused, not repaired: whoever let them in should know.
//
// Send tries once; trying again is the caller's business. Whether that makes
// sense is told by the error: a [PermanentError] stays, any other may pass.
package mail

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	netmail "net/mail"
	"strings"
	"unicode"
	"unicode/utf8"

	gomail "github.com/wneessen/go-mail"

	"github.com/bedplate/bedplate/auth"
)

const (
	maxAddress = 254     // bytes, RFC 5321 section 4.5.3.1.3 without the brackets
	maxSubject = 1 << 10 // bytes
	maxBody    = 1 << 20 // bytes, text and HTML together
)

// A PermanentError says that this message will not be delivered however often
// it is tried: it is malformed, or the mail server refused it with a 5xx
// answer. Being unable to reach, to trust or to sign in to the server is not
// permanent, since the operator can mend it while the message waits.
type PermanentError struct {
	Code int // the SMTP answer or sendmail's exit status; 0: it was not even sent
	Err  error
}

func (e *PermanentError) Error() string { return e.Err.Error() }

func (e *PermanentError) Unwrap() error { return e.Err }

// Permanent returns true.
func (e *PermanentError) Permanent() bool { return true }

// compose checks a message and builds its MIME form. Its errors are permanent.
func compose(from *netmail.Address, m auth.Message) (*gomail.Msg, error) {
	msg, err := build(from, m)
	if err != nil {
		return nil, &PermanentError{Err: fmt.Errorf("composing a mail: %w", err)}
	}
	return msg, nil
}

func build(from *netmail.Address, m auth.Message) (*gomail.Msg, error) {
	if err := check(m); err != nil {
		return nil, err
	}
	_, domain, _ := strings.Cut(from.Address, "@")
	msg := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	msg.FromMailAddress(from)
	msg.ToMailAddress(&netmail.Address{Address: m.To})
	msg.SetGenHeader(gomail.HeaderSubject, encodeSubject(m.Subject))
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: vacation programs do not answer
	msg.SetMessageIDWithValue(rand.Text() + "@" + domain)
	msg.SetDate()
	msg.SetBodyString(gomail.TypeTextPlain, m.Text)
	if m.HTML != "" {
		msg.AddAlternativeString(gomail.TypeTextHTML, m.HTML)
	}
	return msg, nil
}

func check(m auth.Message) error {
	var errs []error
	if err := checkAddress(m.To); err != nil {
		errs = append(errs, fmt.Errorf("the recipient: %w", err))
	}
	switch {
	case strings.ContainsAny(m.Subject, "\r\n\x00"):
		errs = append(errs, errors.New("the subject: not one line"))
	case !utf8.ValidString(m.Subject):
		errs = append(errs, errors.New("the subject: not UTF-8"))
	case len(m.Subject) > maxSubject:
		errs = append(errs, fmt.Errorf("the subject: longer than %d bytes", maxSubject))
	}
	if len(m.Text)+len(m.HTML) > maxBody {
		errs = append(errs, fmt.Errorf("the body: longer than %d bytes", maxBody))
	}
	return errors.Join(errs...)
}

// parseFrom reads "Name <local@domain>" or "local@domain".
func parseFrom(s string) (*netmail.Address, error) {
	if strings.ContainsAny(s, "\r\n\x00") {
		return nil, errors.New("not one line")
	}
	a, err := netmail.ParseAddress(s)
	if err != nil {
		return nil, fmt.Errorf("%q is not an address: %w", s, err)
	}
	return a, checkAddress(a.Address)
}

// checkAddress accepts a bare address that needs no quoting anywhere: not in a
// header, not in an SMTP command, not on a command line. Quoted local parts
// and literal IP addresses, legal but of no use to honest people, are not
// among them.
func checkAddress(s string) error {
	if len(s) > maxAddress {
		return fmt.Errorf("an address longer than %d bytes", maxAddress)
	}
	unfit := func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) || r == utf8.RuneError }
	a, err := netmail.ParseAddress(s)
	if err != nil || a.Name != "" || a.Address != s || strings.ContainsFunc(s, unfit) || strings.ContainsAny(s, `"[]()<>,;:\`) {
		return fmt.Errorf("%q is not one bare address", s)
	}
	return nil
}

// encodeSubject leaves simple subjects readable and makes RFC 2047 encoded
// words of all others: those that are not ASCII, those that look like encoded
// words and would be decoded into something else, and those that folding the
// line would change (tabs, runs of spaces) or could not fold (long words).
func encodeSubject(s string) string {
	if isSimple(s) {
		return s
	}
	const chunk = 45 // bytes, which makes a word of 72 characters where 75 are allowed
	var words []string
	for s != "" {
		n := min(chunk, len(s))
		for n < len(s) && !utf8.RuneStart(s[n]) {
			n--
		}
		words = append(words, "=?utf-8?b?"+base64.StdEncoding.EncodeToString([]byte(s[:n]))+"?=")
		s = s[n:]
	}
	return strings.Join(words, " ")
}

func isSimple(s string) bool {
	for _, word := range strings.Split(s, " ") {
		if word == "" || len(word) > 60 || strings.Contains(word, "=?") {
			return s == ""
		}
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// A shortError has the text of its cause on one line and bounded: some of it
// is what a server or a program chose to say.
type shortError struct{ err error }

func (e shortError) Error() string {
	const limit = 400
	s := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, e.err.Error())
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "..."
	}
	return s
}

func (e shortError) Unwrap() error { return e.err }
