package auth

import (
	"bytes"
	"crypto/sha256"
	"database/sql/driver"
	"encoding/base64"
	"errors"
	"image"
	"image/jpeg"
	"image/png"
	"io"
	"net/http"
	"time"

	"github.com/bedplate/bedplate/sqlite"
)

// Limits of an avatar. Programs that show one decode it, so its pixels count as
// well as its bytes.
const (
	maxAvatar       = 1 << 20 // bytes
	maxAvatarSide   = 8192    // pixels
	maxAvatarPixels = 16 << 20
	avatarAge       = "public, max-age=300"
)

// serveAvatar is GET /avatar/{id}, for everybody. Whatever the file is taken
// for by who opens it, it runs nothing and reads nothing.
func (s *Service) serveAvatar(w http.ResponseWriter, r *http.Request) error {
	id, err := ParseUserID(r.PathValue("id"))
	if err != nil {
		return badRequest("Invalid user id")
	}
	var kind string
	var hash, file []byte
	err = s.db.Query(r.Context(), `SELECT type, hash, file FROM _avatar WHERE user = ?`, []driver.Value{id[:]}, func(v []driver.Value) error {
		kind, hash, file = text(v[0]), blob(v[1]), blob(v[2])
		return nil
	})
	if err != nil {
		return err
	}
	if file == nil {
		return ErrNotFound
	}
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	h.Set("Cache-Control", avatarAge)
	h.Set("ETag", `"`+base64.RawURLEncoding.EncodeToString(hash)+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(file))
	return nil
}

// servePutAvatar is POST /avatar: a multipart form with one file. The file is
// kept as it is, with whatever a camera has written into it.
func (s *Service) servePutAvatar(w http.ResponseWriter, r *http.Request) error {
	u, err := s.requireSession(w, r)
	if err != nil {
		return err
	}
	file, err := readAvatar(w, r)
	if err != nil {
		return err
	}
	kind, err := avatarType(file)
	if err != nil {
		return err
	}
	hash := sha256.Sum256(file)
	return s.db.Write(r.Context(), sqlite.Stmt{
		// Nothing for an account that has gone meanwhile.
		SQL: `INSERT INTO _avatar (user, type, hash, updated, file) SELECT id, ?2, ?3, ?4, ?5 FROM _user WHERE id = ?1
			ON CONFLICT DO UPDATE SET type = excluded.type, hash = excluded.hash, updated = excluded.updated, file = excluded.file`,
		Args: []driver.Value{u.ID[:], kind, hash[:16], s.now().Unix(), file},
	})
}

// serveDeleteAvatar is DELETE /avatar.
func (s *Service) serveDeleteAvatar(w http.ResponseWriter, r *http.Request) error {
	u, err := s.requireSession(w, r)
	if err != nil {
		return err
	}
	return s.db.Write(r.Context(), sqlite.Stmt{SQL: `DELETE FROM _avatar WHERE user = ?`, Args: []driver.Value{u.ID[:]}})
}

// readAvatar returns the one file of a form.
func readAvatar(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	r.Body = http.MaxBytesReader(w, r.Body, maxAvatar+maxBody) // with room for the form around it
	parts, err := r.MultipartReader()
	if err != nil {
		return nil, badRequest("expected multipart")
	}
	part, err := parts.NextPart()
	switch {
	case errors.Is(err, io.EOF):
		return nil, badRequest("Expected single 'file'")
	case err != nil:
		return nil, badRequest("invalid multipart body")
	case part.FormName() != "file" || part.FileName() == "":
		return nil, badRequest("Expected single 'file'")
	}
	file, err := io.ReadAll(io.LimitReader(part, maxAvatar+1))
	if err != nil {
		return nil, badRequest("invalid multipart body")
	}
	if len(file) > maxAvatar {
		return nil, badRequest("file too large")
	}
	switch _, err := parts.NextPart(); {
	case err == nil:
		return nil, badRequest("Expected single 'file'")
	case !errors.Is(err, io.EOF):
		return nil, badRequest("invalid multipart body")
	}
	return file, nil
}

// avatarType tells what a file is by its bytes; what the client says about it
// counts for nothing.
func avatarType(file []byte) (string, error) {
	kind := http.DetectContentType(file)
	var size image.Config
	var err error
	switch kind {
	case "image/png":
		size, err = png.DecodeConfig(bytes.NewReader(file))
	case "image/jpeg":
		size, err = jpeg.DecodeConfig(bytes.NewReader(file))
	default:
		return "", badRequest("expected a PNG or JPEG image")
	}
	switch {
	case err != nil || size.Width <= 0 || size.Height <= 0:
		return "", badRequest("expected a PNG or JPEG image")
	case size.Width > maxAvatarSide || size.Height > maxAvatarSide || size.Width*size.Height > maxAvatarPixels:
		return "", badRequest("image too large")
	}
	return kind, nil
}
