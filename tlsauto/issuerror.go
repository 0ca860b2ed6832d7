package tlsauto

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/acme"
)

// An authorityError is something that an authority, or the way to it, has refused. Its text is bounded
// and printable, whatever the authority has written.
type authorityError struct {
	text  string
	cause error
}

func (e *authorityError) Error() string { return e.text }
func (e *authorityError) Unwrap() error { return e.cause }

const (
	maxProblem  = 500  // bytes of a text of an authority that are shown
	maxProblems = 5    // of those that an answer has
	maxReason   = 1000 // bytes of all of them
)

// issueError says what was being done when an error of acme.Client came, and makes it a
// RetryAfterError if the authority says so.
func issueError(ctx context.Context, doing string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", doing, context.Cause(ctx))
	}
	told := &authorityError{doing + ": " + cut(describe(err), maxReason), err}
	if wait := retryAfterOf(err); wait > 0 {
		return &RetryAfterError{After: wait, Err: told}
	}
	return told
}

// describe is the text of an error of acme.Client.
func describe(err error) string {
	var authorization *acme.AuthorizationError
	var order *acme.OrderError
	var problem *acme.Error
	switch {
	case errors.As(err, &authorization) && len(authorization.Errors) > 0:
		var texts []string
		for _, err := range authorization.Errors[:min(len(authorization.Errors), maxProblems)] {
			texts = append(texts, describe(err))
		}
		return strings.Join(texts, "; ")
	case errors.As(err, &authorization):
		return "refused without a reason"
	case errors.As(err, &order) && order.Problem != nil:
		return "the order is " + printable(order.Status) + ": " + describe(order.Problem)
	case errors.As(err, &order):
		return "the order is " + printable(order.Status)
	case errors.As(err, &problem):
		return describeProblem(problem)
	}
	return printable(err.Error())
}

func describeProblem(e *acme.Error) string {
	text := fmt.Sprintf("%d %s", e.StatusCode, strings.TrimPrefix(e.ProblemType, "urn:ietf:params:acme:error:"))
	text = strings.TrimSpace(text)
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	text = printable(text)
	for _, sub := range e.Subproblems[:min(len(e.Subproblems), maxProblems)] {
		about := ""
		if sub.Identifier != nil {
			about = sub.Identifier.Value + ": "
		}
		text += "; " + printable(about+sub.Detail)
	}
	if e.Instance != "" {
		text += " (see " + printable(e.Instance) + ")"
	}
	return text
}

// cut shortens a text.
func cut(s string, atMost int) string {
	if len(s) <= atMost {
		return s
	}
	return strings.ToValidUTF8(s[:atMost], "") + "..."
}

// printable makes a text safe for logs and terminals, and cuts it.
func printable(s string) string {
	s = cut(s, maxProblem)
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	return strings.Join(strings.Fields(s), " ")
}

// retryAfterOf returns 0 unless an authority is overloaded or has a limit, and says for how long.
func retryAfterOf(err error) (wait time.Duration) {
	var problem *acme.Error
	if !errors.As(err, &problem) || problem.Header == nil {
		return 0
	}
	if wantsPause(problem.StatusCode, problem.ProblemType) {
		return retryAfter(problem.Header)
	}
	return 0
}

func wantsPause(status int, problemType string) bool {
	return status == http.StatusTooManyRequests || status >= 500 || strings.HasSuffix(problemType, ":rateLimited")
}

// isNoAccount reports whether an authority does not know the account.
func isNoAccount(err error) bool {
	var problem *acme.Error
	return errors.Is(err, acme.ErrNoAccount) ||
		errors.As(err, &problem) && strings.HasSuffix(problem.ProblemType, ":accountDoesNotExist")
}
