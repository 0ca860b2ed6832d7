package totp

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"rsc.io/qr"
)

// Sizes in bytes. Issuer and account are cut so that a URL never exceeds maxURL, even if every byte
// of theirs is escaped.
const (
	maxURL     = 1024
	maxIssuer  = 64
	maxAccount = 128
)

// URL returns the otpauth URL by which authenticator apps take over secret. Issuer, the name of the
// application, and account, that of the user, are what the app shows, and may be any text; at most
// 64 and 128 bytes of them are used. The issuer may be empty.
func URL(issuer, account string, secret []byte) string {
	label, query := escape(cut(account, maxAccount)), "?secret="+Encode(secret)
	if issuer != "" {
		issuer = escape(cut(issuer, maxIssuer))
		label, query = issuer+":"+label, query+"&issuer="+issuer
	}
	return fmt.Sprintf("otpauth://totp/%s%s&algorithm=SHA1&digits=%d&period=%d", label, query, digits, period)
}

// ParseURL returns the secret of an otpauth URL, made by [URL] or elsewhere, of at most 1 KiB. One
// that asks for counters instead of time, or for another algorithm, number of digits or period,
// is refused, and so is one with two secrets. What it does not say has the usual value, and what
// is unknown is ignored. The error does not contain the URL.
func ParseURL(s string) (secret []byte, err error) {
	if len(s) > maxURL {
		return nil, errors.New("parsing an otpauth URL: too long")
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "otpauth" || u.User != nil {
		return nil, errors.New("parsing an otpauth URL: malformed")
	}
	if !strings.EqualFold(u.Host, "totp") {
		return nil, errors.New("parsing an otpauth URL: not of type totp")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, errors.New("parsing an otpauth URL: malformed query")
	}
	if len(query["secret"]) != 1 {
		return nil, errors.New("parsing an otpauth URL: not one secret")
	}
	for name, want := range map[string]string{
		"algorithm": "SHA1",
		"digits":    strconv.Itoa(digits),
		"period":    strconv.Itoa(period),
	} {
		for _, value := range query[name] {
			if !strings.EqualFold(value, want) {
				return nil, fmt.Errorf("parsing an otpauth URL: %s is not %s", name, want)
			}
		}
	}
	secret, err = Decode(query.Get("secret"))
	if err != nil {
		return nil, fmt.Errorf("parsing an otpauth URL: %w", err)
	}
	return secret, nil
}

// PNG returns a QR code of an otpauth URL, of at most 1 KiB, as a PNG image.
func PNG(url string) ([]byte, error) {
	if len(url) > maxURL {
		return nil, errors.New("drawing a QR code: URL too long")
	}
	code, err := qr.Encode(url, qr.M)
	if err != nil {
		return nil, fmt.Errorf("drawing a QR code: %w", err)
	}
	return code.PNG(), nil
}

// escape escapes s for both path and query. Apps do not take a plus sign for a space.
func escape(s string) string {
	return strings.ReplaceAll(url.QueryEscape(s), "+", "%20")
}

// cut returns at most n bytes of s, all of whole characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
