package tlsauto

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
)

// tell logs an event and hands it to Config.Events, one at a time. Manager.mu must not be held.
func (m *Manager) tell(e Event) { m.tellAt(levelOf(e.Kind), e) }

func levelOf(kind EventKind) slog.Level {
	switch kind {
	case Expiring:
		return slog.LevelError
	case Failed, StoreFailed, RenewingEarly, ReloadFailed, Doubtful:
		return slog.LevelWarn
	case Refused:
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

func (m *Manager) tellAt(level slog.Level, e Event) {
	if e.Time.IsZero() {
		e.Time = m.now()
	}
	m.telling.Lock()
	defer m.telling.Unlock()
	var attrs []slog.Attr
	if len(e.Names) > 0 {
		attrs = append(attrs, slog.String("names", boundedText(strings.Join(e.Names, ","))))
	}
	if e.Issuer != "" {
		attrs = append(attrs, slog.String("issuer", e.Issuer))
	}
	if !e.NotAfter.IsZero() {
		attrs = append(attrs, slog.Time("not_after", e.NotAfter))
	}
	if !e.Next.IsZero() {
		attrs = append(attrs, slog.Time("next", e.Next))
	}
	if e.Err != nil {
		attrs = append(attrs, slog.String("error", boundedText(e.Err.Error())))
	}
	m.cfg.Logger.LogAttrs(context.Background(), level, "tlsauto: certificate "+strings.ReplaceAll(string(e.Kind), "_", " "), attrs...)
	if m.cfg.Events == nil {
		return
	}
	if err := guard(func() error { m.cfg.Events(e); return nil }); err != nil {
		m.logPanic("Events", err)
	}
}

// A panicError is what guard makes of a panic.
type panicError struct {
	text  string
	trace string // without the values of arguments: a key may be among them
}

func (e *panicError) Error() string { return "panic: " + e.text }

// guard calls a func of the configuration, whose panic must not end the process: it is an error.
func guard(do func() error) (err error) {
	defer func() {
		switch v := recover().(type) {
		case nil:
		case error:
			err = &panicError{v.Error(), trace()}
		case string:
			err = &panicError{v, trace()}
		default: // which may be anything, with secrets in it
			err = &panicError{fmt.Sprintf("%T", v), trace()}
		}
	}()
	return do()
}

// logPanic logs where an error comes from if it is a panic.
func (m *Manager) logPanic(what string, err error) {
	if p, ok := errors.AsType[*panicError](err); ok {
		m.cfg.Logger.Error("tlsauto: panic in "+what, "error", boundedText(p.text), "trace", p.trace)
	}
}

// trace lists the functions that a panic came through.
func trace() string {
	pcs := make([]uintptr, 30)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(4, pcs)])
	var b strings.Builder
	for {
		frame, more := frames.Next()
		fmt.Fprintf(&b, "%s:%d ", frame.Function, frame.Line)
		if !more {
			return strings.TrimSpace(b.String())
		}
	}
}
