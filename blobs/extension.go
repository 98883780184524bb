package blobs

import "strings"

// extensions are those of our own, so that a name does not depend on the
// MIME files of the host.
var extensions = map[string]string{
	"image/apng":    ".apng",
	"image/avif":    ".avif",
	"image/bmp":     ".bmp",
	"image/gif":     ".gif",
	"image/heic":    ".heic",
	"image/heif":    ".heif",
	"image/jpeg":    ".jpg",
	"image/jpg":     ".jpg",
	"image/jxl":     ".jxl",
	"image/png":     ".png",
	"image/svg+xml": ".svg",
	"image/tiff":    ".tiff",
	"image/webp":    ".webp",
	"image/x-icon":  ".ico",

	"audio/aac":       ".aac",
	"audio/aiff":      ".aiff",
	"audio/amr":       ".amr",
	"audio/flac":      ".flac",
	"audio/l16":       ".pcm",
	"audio/m4a":       ".m4a",
	"audio/midi":      ".mid",
	"audio/mp3":       ".mp3",
	"audio/mp4":       ".m4a",
	"audio/mpeg":      ".mp3",
	"audio/ogg":       ".ogg",
	"audio/opus":      ".opus",
	"audio/pcm":       ".pcm",
	"audio/vnd.wave":  ".wav",
	"audio/wav":       ".wav",
	"audio/wave":      ".wav",
	"audio/webm":      ".weba",
	"audio/x-aiff":    ".aiff",
	"audio/x-flac":    ".flac",
	"audio/x-m4a":     ".m4a",
	"audio/x-wav":     ".wav",
	"application/ogg": ".ogg",

	"video/3gpp":       ".3gp",
	"video/mp4":        ".mp4",
	"video/mpeg":       ".mpeg",
	"video/ogg":        ".ogv",
	"video/quicktime":  ".mov",
	"video/webm":       ".webm",
	"video/x-flv":      ".flv",
	"video/x-matroska": ".mkv",
	"video/x-msvideo":  ".avi",

	"application/epub+zip":                           ".epub",
	"application/gzip":                               ".gz",
	"application/json":                               ".json",
	"application/msword":                             ".doc",
	"application/pdf":                                ".pdf",
	"application/rtf":                                ".rtf",
	"application/vnd.ms-excel":                       ".xls",
	"application/vnd.ms-powerpoint":                  ".ppt",
	"application/vnd.oasis.opendocument.spreadsheet": ".ods",
	"application/vnd.oasis.opendocument.text":        ".odt",
	"application/vnd.openxmlformats-officedocument.presentationml.presentation": ".pptx",
	"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet":         ".xlsx",
	"application/vnd.openxmlformats-officedocument.wordprocessingml.document":   ".docx",
	"application/x-tar":  ".tar",
	"application/x-yaml": ".yaml",
	"application/xml":    ".xml",
	"application/yaml":   ".yaml",
	"application/zip":    ".zip",

	"text/css":      ".css",
	"text/csv":      ".csv",
	"text/html":     ".html",
	"text/markdown": ".md",
	"text/plain":    ".txt",
	"text/rtf":      ".rtf",
	"text/xml":      ".xml",
}

// unknownExtension is that of every other MIME type.
const unknownExtension = ".bin"

// extension is the file name extension of a MIME type, its parameters ignored.
func extension(mimeType string) string {
	bare, _, _ := strings.Cut(mimeType, ";")
	if ext, ok := extensions[strings.ToLower(strings.TrimSpace(bare))]; ok {
		return ext
	}
	return unknownExtension
}
