package sftp

import (
	"errors"
	"strings"
)

var errNoHostKey = errors.New("the host key of the server is missing")

// hostKey returns a key as it was meant: a plus sign that is not escaped is a space in a URL.
func hostKey(text string) string {
	kind, encoded, _ := strings.Cut(strings.TrimSpace(text), " ")
	if encoded == "" {
		return ""
	}
	return kind + " " + strings.ReplaceAll(encoded, " ", "+")
}
