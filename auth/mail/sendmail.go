package mail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	netmail "net/mail"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/bedplate/bedplate/auth"
)

// SendmailConfig configures [NewSendmail]. From is required.
type SendmailConfig struct {
	Path    string        // absolute; "": /usr/sbin/sendmail
	From    string        // "Name <no-reply@example.com>" or the bare address
	Timeout time.Duration // for one run of the program; 0: 30 s
}

// Sendmail is an [auth.Mailer] that runs the sendmail program, which Postfix,
// Exim, OpenSMTPD, msmtp and others bring along.
type Sendmail struct {
	path    string
	from    *netmail.Address
	timeout time.Duration
}

// NewSendmail checks the configuration, the program included, and reports
// every mistake in it. It runs nothing.
func NewSendmail(cfg SendmailConfig) (*Sendmail, error) {
	s := &Sendmail{path: cfg.Path, timeout: cfg.Timeout}
	if s.path == "" {
		s.path = "/usr/sbin/sendmail"
	}
	if s.timeout == 0 {
		s.timeout = defaultTimeout
	}
	var errs []error
	if !filepath.IsAbs(s.path) {
		errs = append(errs, fmt.Errorf("the program: %q is not an absolute path", s.path))
	} else if _, err := exec.LookPath(s.path); err != nil {
		errs = append(errs, fmt.Errorf("the program: %w", err))
	}
	var err error
	if s.from, err = parseFrom(cfg.From); err != nil {
		errs = append(errs, fmt.Errorf("the sender: %w", err))
	}
	if s.timeout < 0 {
		errs = append(errs, fmt.Errorf("the timeout: %v is negative", s.timeout))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("configuring sendmail: %w", err)
	}
	return s, nil
}

// Send runs the program, as "sendmail -i -f FROM -- TO", with the message as
// its input, and waits for it. The error is a [*PermanentError] if the message
// is malformed or the program's exit status says that it cannot be delivered.
func (s *Sendmail) Send(ctx context.Context, m auth.Message) error {
	msg, err := compose(s.from, m)
	if err != nil {
		return err
	}
	var input bytes.Buffer
	if _, err := msg.WriteTo(&input); err != nil {
		return &PermanentError{Err: fmt.Errorf("composing a mail: %w", err)}
	}

	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.path, "-i", "-f", s.from.Address, "--", m.To)
	// Its input is a text file of the host, where lines end in a line feed.
	cmd.Stdin = bytes.NewReader(bytes.ReplaceAll(input.Bytes(), []byte("\r\n"), []byte("\n")))
	output := new(headWriter)
	cmd.Stdout, cmd.Stderr = output, output
	cmd.WaitDelay = time.Second

	err = cmd.Run()
	// It may succeed and leave a child behind that delivers the mail and keeps the pipes.
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("sending a mail by sendmail: %w", ctx.Err())
	}
	err = fmt.Errorf("sending a mail by sendmail: %w", shortError{fmt.Errorf("%w: %s", err, bytes.TrimSpace(output.head))})
	if code := cmd.ProcessState.ExitCode(); isRefusal(code) {
		return &PermanentError{Code: code, Err: err}
	}
	return err
}

// isRefusal knows the statuses of sysexits.h that concern the message.
func isRefusal(code int) bool {
	const (
		dataErr = 65
		noUser  = 67
		noHost  = 68
	)
	return code == dataErr || code == noUser || code == noHost
}

// A headWriter keeps the beginning of what is written to it.
type headWriter struct{ head []byte }

func (w *headWriter) Write(p []byte) (int, error) {
	const limit = 1 << 10
	w.head = append(w.head, p[:min(len(p), limit-len(w.head))]...)
	return len(p), nil
}
