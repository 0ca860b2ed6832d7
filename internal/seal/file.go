package seal

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxFileSize is enough for some sixty keys, or for a few and many comments.
const maxFileSize = 4 << 10

// LoadFile reads a key file. The file is text: a key per line, written as
// "bedplate-key-1" and, after a space, 43 characters of unpadded base64url.
// The first key seals, all of them open. Empty lines and lines that begin
// with "#" are skipped.
//
// To replace a master key, put the line of a new file from [CreateFile] above
// the old one, seal everything anew, and then remove the old line.
//
// When there is no file, the error is [fs.ErrNotExist]. A file is refused, with
// path and reason, when it
//
//   - is a symbolic link or not a regular file
//   - may be used by anybody but its owner (mode 0600 at most)
//   - belongs to another user than the one this process runs as
//   - is larger than 4 KiB or has no key
//   - has a line that is no key, a key of zeros, or a key twice
//
// Where the operating system knows no modes and owners as Unix does, these
// two are not looked at.
func LoadFile(path string) (*Key, error) {
	key, err := loadFile(path)
	if err != nil {
		return nil, fmt.Errorf("loading key file %s: %w", path, withoutPath(err))
	}
	return key, nil
}

func loadFile(path string) (*Key, error) {
	f, err := openNoFollow(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()

	// What is open is checked, not what the path names by now.
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	if err := checkAccess(info); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxFileSize {
		return nil, fmt.Errorf("larger than %d bytes", maxFileSize)
	}
	return parse(string(text))
}

// CreateFile makes a random key and writes it into a new key file with mode
// 0600, whatever the umask. When something of that name exists, even a broken
// link, it stays as it is and the error is [fs.ErrExist]; of several processes
// that try at once exactly one succeeds. The file appears complete or not at
// all, and when CreateFile returns it survives a power failure.
//
// The directory must exist, and its file system must know hard links.
func CreateFile(path string) (*Key, error) {
	secret := make([]byte, secretSize)
	_, _ = rand.Read(secret) // never fails

	key, err := NewKey(secret)
	if err != nil {
		return nil, err
	}
	if err := createFile(path, keyLine(secret)); err != nil {
		return nil, fmt.Errorf("creating key file %s: %w", path, withoutPath(err))
	}
	return key, nil
}

// createFile writes a temporary file and gives it its name by a link, which
// unlike a rename replaces nothing.
func createFile(path, text string) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".bedplate-key-*") // O_EXCL, so no link is followed
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())

	err = writeSynced(f, text)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

func writeSynced(f *os.File, text string) error {
	if err := f.Chmod(0o600); err != nil { // the umask may have taken bits away
		return err
	}
	if _, err := f.WriteString(text); err != nil {
		return err
	}
	return f.Sync()
}

const keyPrefix = "bedplate-key-1 "

func keyLine(secret []byte) string {
	return keyPrefix + base64.RawURLEncoding.EncodeToString(secret) + "\n"
}

// parse reads the text of a key file. Its errors never quote the text.
func parse(text string) (*Key, error) {
	key := &Key{}
	number := 0
	for line := range strings.SplitSeq(text, "\n") {
		number++
		line = strings.TrimSuffix(line, "\r")
		if line == "" || line[0] == '#' {
			continue
		}
		k, err := parseLine(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		for _, other := range key.keys {
			if bytes.Equal(other.id[:], k.id[:]) {
				return nil, fmt.Errorf("line %d: key stands there twice", number)
			}
		}
		key.keys = append(key.keys, k)
	}
	if len(key.keys) == 0 {
		return nil, errors.New("empty, or nothing but comments")
	}
	return key, nil
}

func parseLine(line string) (*masterKey, error) {
	encoded, ok := strings.CutPrefix(line, keyPrefix)
	if !ok {
		return nil, errors.New("not a key")
	}
	if len(encoded) != base64.RawURLEncoding.EncodedLen(secretSize) {
		return nil, errors.New("key is cut short or too long")
	}
	// A line break, which the decoder would skip, makes the secret too short.
	secret, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return nil, errors.New("key is not base64url")
	}
	return newMasterKey(secret)
}

// withoutPath takes the path off an error of package os, which would be named
// twice, or be that of a temporary file.
func withoutPath(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	var linkErr *os.LinkError
	if errors.As(err, &linkErr) {
		return linkErr.Err
	}
	return err
}
