package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// What processes tell each other about backups is in small files in one directory, in which
// nobody else can write. They are read as if somebody could.

// backupDir is where the server keeps what concerns backups, if nothing else is said.
func (conf *config) backupDir() string { return filepath.Join(conf.DataDir, "backup") }

// makeBackupDir makes backupDir, if it is not there. Nobody else can look into it then. One in
// which others can write is an error: they could give orders there.
func (conf *config) makeBackupDir() error {
	dir := conf.backupDir()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the directory for backups: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Errorf("others may write to %s, its mode is %#o: change that to 0700", dir, mode)
	}
	return checkOwner(dir, info, os.Geteuid(), root)
}

const root = 0 // the user who can do everything anyway

// checkOwner refuses a file that belongs to none of the users, where files belong to users.
func checkOwner(path string, info fs.FileInfo, users ...int) error {
	uid, ok := ownerOf(info)
	for _, user := range users {
		ok = ok && uid != user
	}
	if ok {
		return fmt.Errorf("%s belongs to another user, %d: run this as that user", path, uid)
	}
	return nil
}

// lockFile makes a file in backupDir and locks it until it is closed, or the process ends. While
// somebody else has the lock, locked is false.
func (conf *config) lockFile(name string) (f *os.File, locked bool, err error) {
	f, err = os.OpenFile(filepath.Join(conf.backupDir(), name), os.O_CREATE|os.O_RDWR|openFlags, 0o600)
	if err != nil {
		return nil, false, err
	}
	locked, err = tryLock(f)
	if err != nil || !locked {
		return nil, false, errors.Join(err, f.Close())
	}
	return f, true, nil
}

// maxSmall is more than any of the files is long, in bytes.
const maxSmall = 1 << 20

// openRegular opens a file for reading. It neither follows a symbolic link nor waits for whoever
// may write to a pipe.
func openRegular(path string) (*os.File, fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file", path)
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, info, nil
}

// readSmall reads JSON from a file that users may have written; without any, everybody.
func readSmall(file string, to any, users ...int) error {
	f, info, err := openRegular(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if len(users) > 0 {
		if err := checkOwner(file, info, users...); err != nil {
			return err
		}
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSmall+1))
	if err != nil {
		return err
	}
	if len(text) > maxSmall {
		return fmt.Errorf("%s is larger than %d bytes", file, maxSmall)
	}
	if err := json.Unmarshal(text, to); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

// replaceSmall writes JSON to a file that nobody ever sees in part. What root writes belongs to
// the owner of the directory.
func replaceSmall(file string, v any) (err error) {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	temp := file + ".new"
	if err := removeFile(temp); err != nil {
		return err
	}
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err == nil && os.Geteuid() == root {
		err = giveToOwner(f, filepath.Dir(file))
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(temp, file)
}

func giveToOwner(f *os.File, dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if uid, ok := ownerOf(info); ok && uid != root {
		return f.Chown(uid, -1)
	}
	return nil
}

// removeFile removes a file that need not be there.
func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
