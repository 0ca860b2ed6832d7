package mail

import (
	"context"
	"log/slog"

	"github.com/bedplate/bedplate/auth"
)

// Log is an [auth.Mailer] for development: it delivers nothing and writes
// every message to the log, whole. Messages hold links and codes that sign in;
// whoever reads the log can use them. Do not use it with real accounts.
type Log struct {
	logger *slog.Logger
}

// NewLog returns a Log that writes to logger at level Info; nil:
// [slog.Default].
func NewLog(logger *slog.Logger) *Log {
	if logger == nil {
		logger = slog.Default()
	}
	return &Log{logger}
}

// Send logs the message. A malformed one is refused like elsewhere, so that
// development finds the mistake.
func (l *Log) Send(ctx context.Context, m auth.Message) error {
	if err := check(m); err != nil {
		return &PermanentError{Err: err}
	}
	l.logger.LogAttrs(ctx, slog.LevelInfo, "mail not sent, only logged",
		slog.String("to", m.To), slog.String("subject", m.Subject), slog.String("text", m.Text), slog.String("html", m.HTML))
	return nil
}
