package tlsauto

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/acme"
)

// finalizePauses are those before an order is looked at again whose certificate could not be fetched.
func finalizePauses() []time.Duration {
	return []time.Duration{
		1 * time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 30 * time.Second, 30 * time.Second,
	}
}

// finalize asks for the certificate of an order, and fetches it. What the authority has issued counts
// against its limits even if it does not arrive, and the next order is another one: so what fails from
// here on is tried again, unless the order itself is over.
func (t *attempt) finalize(ctx context.Context, o *acme.Order, csr []byte) ([][]byte, error) {
	pauses := t.acme.pauses
	if pauses == nil {
		pauses = finalizePauses()
	}
	chain, _, err := t.client.CreateCertFromOrder(ctx, o, csr, true)
	for _, pause := range pauses {
		if err == nil || isOver(err) || !rest(ctx, pause, err) {
			break
		}
		t.order.Logger.WarnContext(ctx, "tlsauto: the certificate could not be fetched and is tried again",
			"names", t.order.Names, "error", issueError(ctx, "fetch the certificate", err))
		current, lookErr := t.client.WaitOrder(ctx, o.URI)
		switch {
		case lookErr != nil:
			err = lookErr
		case current.Status == acme.StatusValid:
			chain, err = t.client.FetchCert(ctx, current.CertURL, true)
		case isRefusal(err): // nothing has been issued, and nothing will be
			return nil, err
		default: // the request has not arrived
			chain, _, err = t.client.CreateCertFromOrder(ctx, o, csr, true)
		}
	}
	return chain, err
}

// isOver reports whether an order cannot end in a certificate any more, or is out of reach.
func isOver(err error) bool {
	var order *acme.OrderError
	return errors.As(err, &order) || isNoAccount(err)
}

// isRefusal reports whether the same request would be answered in the same way again.
func isRefusal(err error) bool {
	var problem *acme.Error
	return errors.As(err, &problem) && problem.StatusCode >= 400 && problem.StatusCode < 500 &&
		!slices.Contains([]int{http.StatusRequestTimeout, http.StatusTooManyRequests}, problem.StatusCode) &&
		!strings.HasSuffix(problem.ProblemType, ":badNonce")
}

// rest waits before something that has failed is tried again, and reports whether it should be: for as
// long as the authority wants, unless that is long.
func rest(ctx context.Context, pause time.Duration, err error) bool {
	pause = max(pause, retryAfterOf(err))
	deadline, ok := ctx.Deadline()
	if pause > maxPoll || ok && time.Until(deadline) < pause {
		return false
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
