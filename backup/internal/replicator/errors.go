package replicator

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"syscall"

	"github.com/benbjohnson/litestream"
	"github.com/superfly/ltx"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

// A codeError is an error that the program treats differently from others.
type codeError struct {
	code wire.Code
	err  error
}

func (e *codeError) Error() string { return e.err.Error() }
func (e *codeError) Unwrap() error { return e.err }

// codeOf returns the code for an error.
func codeOf(err error) wire.Code {
	var coded *codeError
	switch {
	case err == nil:
		return wire.CodeOther
	case errors.As(err, &coded):
		return coded.code
	case errors.Is(err, litestream.ErrDiskFull), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return wire.CodeFullDisk
	case errors.Is(err, litestream.ErrLTXCorrupted), errors.Is(err, litestream.ErrChecksumMismatch), errors.Is(err, ltx.ErrChecksumMismatch):
		return wire.CodeCorrupt
	case errors.Is(err, context.DeadlineExceeded):
		return wire.CodeNotInTime
	case denied(err):
		return wire.CodeDenied
	default:
		return wire.CodeOther
	}
}

// denied reports whether a store did not accept the credentials. The stores have different types
// for that, or none.
func denied(err error) bool {
	if errors.Is(err, fs.ErrPermission) {
		return true
	}
	var status interface{ HTTPStatusCode() int }
	if errors.As(err, &status) && (status.HTTPStatusCode() == 401 || status.HTTPStatusCode() == 403) {
		return true
	}
	text := err.Error()
	for _, sign := range []string{
		"AccessDenied", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch", "TokenRefreshRequired", // S3
		"failed to refresh cached credentials", "static credentials are empty",
		"AuthenticationFailed", "AuthorizationFailure", "AuthorizationPermissionMismatch", // Azure
		"googleapi: Error 401", "googleapi: Error 403", "could not find default credentials", "invalid_grant", // Google
		"unable to authenticate",                           // SFTP
		"Authorization Violation", "Permissions Violation", // NATS
	} {
		if strings.Contains(text, sign) {
			return true
		}
	}
	return false
}
