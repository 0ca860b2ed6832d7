//go:build unix

package tlsauto_test

import (
	"os"
	"syscall"
	"testing"

	"github.com/bedplate/bedplate/tlsauto"
)

// Nobody ever writes to the pipe, for which Run must not wait.
func TestFilesPipe(t *testing.T) {
	t.Parallel()
	testRefused(t, newTestCA(t, "files"), func(t *testing.T, f tlsauto.Files) {
		noError(t, os.Remove(f.Key))
		noError(t, syscall.Mkfifo(f.Key, 0o600))
	}, "key.pem: not a regular file")
}
