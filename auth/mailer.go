package auth

import "context"

// A Mailer sends one message. It is called from a background worker, by one
// goroutine at a time, with a deadline; an error makes the worker try again
// later. The package auth/mail has one for SMTP and one for sendmail.
type Mailer interface {
	Send(ctx context.Context, m Message) error
}

// A Message is a mail to one recipient. The sender is the Mailer's business.
type Message struct {
	To      string // a bare address, as in "user@example.com"
	Subject string // one line
	Text    string
	HTML    string // optional
}
