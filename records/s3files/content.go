package s3files

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"os"

	"github.com/bedplate/bedplate/internal/iox"
)

// A content is what is to be stored: size bytes of r, from start to its end.
// As an io.ReadSeeker it begins at 0, wherever r does.
type content struct {
	r           io.ReadSeeker
	start, size int64
	temp        *os.File // r, if it was copied there; else nil
	moved       func()   // called by Read, if not nil
}

// newContent returns what r holds; if r cannot be rewound, as a temporary file
// in dir.
func newContent(ctx context.Context, r io.Reader, size int64, dir string) (*content, error) {
	if seeker, ok := r.(io.ReadSeeker); ok {
		if start, err := seeker.Seek(0, io.SeekCurrent); err == nil {
			return &content{r: seeker, start: start, size: size}, nil
		}
	}
	temp, err := os.CreateTemp(dir, "s3files-")
	if err != nil {
		return nil, err
	}
	// Where open files can be removed, a crash leaves none.
	_ = os.Remove(temp.Name())
	c := &content{r: temp, size: size, temp: temp}
	err = iox.CopyExactly(ctx, temp, r, size)
	if err == nil {
		_, err = c.Seek(0, io.SeekStart)
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *content) close() {
	if c.temp != nil {
		_ = c.temp.Close()
		_ = os.Remove(c.temp.Name())
	}
}

// checksum returns the SHA-256 of the content in Base64. It reads from where r
// stands, and then rewinds.
func (c *content) checksum(ctx context.Context) (string, error) {
	h := sha256.New()
	if err := iox.CopyExactly(ctx, h, c.r, c.size); err != nil {
		return "", err
	}
	_, err := c.Seek(0, io.SeekStart)
	return base64.StdEncoding.EncodeToString(h.Sum(nil)), err
}

func (c *content) Read(p []byte) (int, error) {
	if c.moved != nil {
		c.moved()
	}
	return c.r.Read(p)
}

func (c *content) Seek(offset int64, whence int) (int64, error) {
	if whence == io.SeekStart {
		offset += c.start
	}
	pos, err := c.r.Seek(offset, whence)
	return pos - c.start, err
}
