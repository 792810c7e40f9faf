#!/usr/bin/env Rscript
# Installs packages into the R library of an image. R's own install.packages only warns of what it could not
# install; here that is an error, and so is a package in another version than its entry asks for.
#
# usage: skelebot-r-install MIRROR ENTRY...
#   MIRROR  the address of a CRAN mirror; empty for the one that R is set up for, or else CRAN's own
#   ENTRY   NAME, NAME=VERSION, file:PACKAGE.tar.gz, git:URL, git:URL#REF or renv:LOCKFILE

words <- commandArgs(trailingOnly = TRUE)
mirror <- words[[1]]
entries <- words[-1]

# The packages that were asked for so far, with their versions; a later step must not undo an earlier one.
record <- "/usr/local/share/skelebot-r-packages"

fail <- function(...) {
  message("ERROR: ", ...)
  quit(save = "no", status = 1)
}

run <- function(program, ...) system2(program, shQuote(c(...)))

repositories <- function() {
  known <- getOption("repos")
  if (nzchar(mirror)) known["CRAN"] <- mirror
  known[known == "@CRAN@"] <- "https://cloud.r-project.org"
  known
}

# --- the entries ---

install <- function(entry) {
  kind <- sub(":.*", "", entry)
  rest <- sub("^[a-z]+:", "", entry)
  switch(
    if (kind == entry) "name" else kind,
    name = install_named(entry),
    file = install_archive(rest),
    git = install_repository(rest),
    renv = install_locked(rest)
  )
}

install_named <- function(entry) {
  name <- sub("=.*", "", entry)
  version <- if (name == entry) "any" else sub(".*=", "", entry)
  if (version == "any") install_missing(name)
  else if (!identical(version_of(name), version)) install_archive(downloaded(name, version))
  remember(name, version)
}

install_missing <- function(names) {
  missing <- names[is.na(vapply(names, version_of, ""))]
  if (length(missing) > 0) install.packages(missing)
}

# A mirror has the present version of a package, and an archive with the former ones.
downloaded <- function(name, version) {
  file <- sprintf("%s_%s.tar.gz", name, version)
  target <- file.path(tempdir(), file)
  paths <- c(file, file.path("Archive", name, file))
  for (url in outer(contrib.url(getOption("repos"), "source"), paths, file.path)) {
    problem <- download(url, target)
    if (is.null(problem)) return(target)
    message(problem)
  }
  fail("there is no version ", version, " of the package ", name, " at ", toString(getOption("repos")))
}

# What keeps a file from being downloaded, or NULL.
download <- function(url, target) {
  tryCatch({
    download.file(url, target, mode = "wb", quiet = TRUE)
    NULL
  }, warning = conditionMessage, error = conditionMessage)
}

install_archive <- function(path) {
  folder <- tempfile("package")
  untar(path, exdir = folder, tar = "internal")
  found <- list.files(folder, "^DESCRIPTION$", recursive = TRUE)
  if (length(found) == 0) fail(path, " holds no package of R")
  highest <- found[order(nchar(found))][[1]]
  install_source(dirname(file.path(folder, highest)))
}

install_repository <- function(address) {
  folder <- tempfile("repository")
  url <- sub("#.*", "", address)
  git("clone", "--quiet", "--recurse-submodules", url, folder)
  if (url != address) {
    git("-C", folder, "checkout", "--quiet", sub(".*#", "", address))
    git("-C", folder, "submodule", "--quiet", "update", "--init", "--recursive")
  }
  if (!file.exists(file.path(folder, "DESCRIPTION"))) fail(url, " holds no package of R")
  install_source(folder)
}

git <- function(...) {
  Sys.setenv(GIT_TERMINAL_PROMPT = "0")
  if (run("git", ...) != 0) fail("git could not fetch the package; its message stands above")
}

install_source <- function(folder) {
  fields <- c("Package", "Version", "Depends", "Imports", "LinkingTo")
  description <- read.dcf(file.path(folder, "DESCRIPTION"), fields)
  name <- description[[1, "Package"]]
  install_missing(tools::package_dependencies(name, description)[[1]])
  library <- paste0("--library=", .libPaths()[[1]])
  if (run(file.path(R.home("bin"), "R"), "CMD", "INSTALL", library, folder) != 0) {
    fail("the package ", name, " could not be installed; R's message stands above")
  }
  remember(name, description[[1, "Version"]])
}

# By renv itself, which is there for this alone: https://rstudio.github.io/renv/reference/restore.html
install_locked <- function(lockfile) {
  library <- tempfile("renv")
  dir.create(library)
  quickly <- c("--no-docs", "--no-byte-compile", "--no-test-load")
  install.packages("renv", lib = library, INSTALL_opts = quickly)
  loadNamespace("renv", lib.loc = library)
  # Nothing of its own is to stay in the image.
  Sys.setenv(RENV_CONFIG_CACHE_ENABLED = "FALSE", RENV_CONFIG_SANDBOX_ENABLED = "FALSE")
  Sys.setenv(RENV_PATHS_ROOT = tempfile("root"))
  options(renv.consent = TRUE)
  if (nzchar(mirror)) options(renv.config.repos.override = getOption("repos"))
  renv::restore(project = tempdir(), library = .libPaths()[[1]], lockfile = lockfile, prompt = FALSE)
  for (package in renv::lockfile_read(lockfile)$Packages) remember(package$Package, package$Version)
}

# --- what is there in the end ---

# The version of a package as its author wrote it; NA where it is not installed. What this process has loaded
# does not count.
version_of <- function(name) {
  folder <- system.file(package = name, lib.loc = .libPaths())
  if (nzchar(folder)) read.dcf(file.path(folder, "DESCRIPTION"), "Version")[[1]] else NA_character_
}

versions <- function() installed.packages(noCache = TRUE)[, "Version"]

remember <- function(name, version) cat(name, " ", version, "\n", sep = "", file = record, append = TRUE)

check <- function(before) {
  wanted <- unique(read.table(record, col.names = c("name", "version"), colClasses = "character"))
  mapply(check_version, wanted$name, wanted$version)
  # What was made for another version of a package may not work with the one that has come now.
  if (!identical(versions()[names(before)], before)) check_together(unique(wanted$name))
}

check_version <- function(name, version) {
  now <- version_of(name)
  if (is.na(now)) fail("the package ", name, " could not be installed; R's message stands above")
  if (!version %in% c("any", now)) {
    fail("an entry asks for ", name, " ", version, ", but ", now, " is installed, which another needs")
  }
}

check_together <- function(names) {
  code <- "for (name in commandArgs(TRUE)) loadNamespace(name)"
  if (run(file.path(R.home("bin"), "Rscript"), "-e", code, names) != 0) {
    fail("the packages do not go together in these versions; R's message stands above")
  }
}

options(
  repos = repositories(),
  warn = 1,
  timeout = 600,
  Ncpus = if (nzchar(Sys.which("make"))) parallel::detectCores() else 1L
)
before <- versions()
for (entry in entries) install(entry)
check(before)
