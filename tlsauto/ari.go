package tlsauto

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const maxAdvice = 64 << 10 // bytes of an answer

// RenewalInfo asks the authority when a certificate should be renewed (RFC 9773). The error is
// [errors.ErrUnsupported] when its directory says nothing of that, or the certificate names no key of
// its issuer. AskAgain is between a minute and a day, or 0.
func (d *Directory) RenewalInfo(ctx context.Context, leaf, _ *x509.Certificate) (*RenewalInfo, error) {
	id, err := renewalID(leaf)
	if err != nil {
		return nil, err
	}
	l := d.connect(ctx)
	defer l.close()

	var directory struct {
		RenewalInfo string `json:"renewalInfo"`
	}
	if _, err := l.getJSON(ctx, d.url(), &directory); err != nil {
		return nil, fmt.Errorf("read the directory: %w", err)
	}
	if directory.RenewalInfo == "" {
		return nil, fmt.Errorf("the directory has no renewal information: %w", errors.ErrUnsupported)
	}
	var answer struct {
		SuggestedWindow struct {
			Start time.Time `json:"start"`
			End   time.Time `json:"end"`
		} `json:"suggestedWindow"`
		ExplanationURL string `json:"explanationURL"`
	}
	header, err := l.getJSON(ctx, strings.TrimSuffix(directory.RenewalInfo, "/")+"/"+id, &answer)
	if err != nil {
		return nil, fmt.Errorf("read the renewal information: %w", err)
	}
	window := answer.SuggestedWindow
	if window.Start.IsZero() || !window.Start.Before(window.End) {
		return nil, fmt.Errorf("read the renewal information: the window from %s to %s is none",
			window.Start.UTC().Format(time.RFC3339), window.End.UTC().Format(time.RFC3339))
	}
	info := &RenewalInfo{Start: window.Start, End: window.End}
	if u, err := url.Parse(answer.ExplanationURL); err == nil && (u.Scheme == "https" || u.Scheme == "http") {
		info.ExplanationURL = printable(u.String())
	}
	if wait := retryAfter(header); wait > 0 {
		info.AskAgain = min(max(wait, time.Minute), longestRetry)
	}
	return info, nil
}

// renewalID is the name of a certificate there (RFC 9773, section 4.1): the key identifier of its
// issuer, and the bytes of its serial number as they are in DER.
func renewalID(leaf *x509.Certificate) (string, error) {
	if len(leaf.AuthorityKeyId) == 0 {
		return "", fmt.Errorf("the certificate has no authority key identifier: %w", errors.ErrUnsupported)
	}
	serial := leaf.SerialNumber.Bytes()
	if len(serial) == 0 || serial[0]&0x80 != 0 {
		serial = append([]byte{0}, serial...)
	}
	encode := base64.RawURLEncoding.EncodeToString
	return encode(leaf.AuthorityKeyId) + "." + encode(serial), nil
}

// getJSON makes an unsigned request, which acme.Client has none of.
func (l *link) getJSON(ctx context.Context, address string, v any) (http.Header, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, errors.New("the address is none")
	}
	r.Header.Set("User-Agent", userAgent)
	res, err := l.client.Do(r)
	if err != nil {
		return nil, &authorityError{printable(err.Error()), err}
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAdvice+1))
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		err := fmt.Errorf("the answer is %d %s", res.StatusCode, http.StatusText(res.StatusCode))
		if wait := retryAfter(res.Header); wait > 0 && wantsPause(res.StatusCode, "") {
			return nil, &RetryAfterError{After: wait, Err: err}
		}
		return nil, err
	}
	if len(body) > maxAdvice {
		return nil, fmt.Errorf("the answer has more than %d bytes", maxAdvice)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return nil, &authorityError{"the answer is not as expected: " + printable(err.Error()), err}
	}
	return res.Header, nil
}
