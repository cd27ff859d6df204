# The image for both architectures: `docker buildx bake -f packaging/container/docker-bake.hcl`, from the root of the repository.
# Each platform is built on a node of its own, or emulated (a build of ten minutes then takes hours).
#
#   bash packaging/container/bases.sh     prints BUILD and BASE by digest: export them for a build that you release

variable "BUILD" { default = "docker.io/library/rust:1.95-bookworm" }
variable "BASE" { default = "gcr.io/distroless/cc-debian12:nonroot" }
variable "REVISION" { default = "unknown" }
# A record of packaging/record.sh for the platform that is built; none unless said.
variable "RECORD" { default = "" }

target "rotogate" {
  context    = "."
  dockerfile = "packaging/container/Containerfile"
  platforms  = ["linux/amd64", "linux/arm64"]
  tags       = ["rotogate"]
  args       = { BUILD = BUILD, BASE = BASE, REVISION = REVISION, RECORD = RECORD }
  labels     = { "org.opencontainers.image.revision" = REVISION, "org.opencontainers.image.base.name" = BASE }
}

group "default" {
  targets = ["rotogate"]
}
