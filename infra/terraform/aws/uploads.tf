locals {
  uploads     = "${var.name}-uploads-${local.account}-${var.region}"
  uploads_arn = "arn:${data.aws_partition.here.partition}:s3:::${local.uploads}"
}

resource "aws_s3_bucket" "uploads" {
  bucket        = local.uploads
  force_destroy = !var.protect
}

resource "aws_s3_bucket_public_access_block" "all" {
  for_each                = { uploads = aws_s3_bucket.uploads.id, code = aws_s3_bucket.code.id }
  bucket                  = each.value
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "uploads" {
  bucket = aws_s3_bucket.uploads.id
  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

# With versions, onUpload reads and deletes the very object that an event names, not a later object of that name.
resource "aws_s3_bucket_versioning" "uploads" {
  bucket = aws_s3_bucket.uploads.id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "uploads" {
  bucket = aws_s3_bucket.uploads.id
  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

# A refused upload stays for a day, for inspection. onUpload deletes an imported bundle at once, by its version.
resource "aws_s3_bucket_lifecycle_configuration" "uploads" {
  count  = var.local ? 0 : 1
  bucket = aws_s3_bucket.uploads.id
  rule {
    id     = "a-day"
    status = "Enabled"
    filter {}
    expiration {
      days = 1
    }
    noncurrent_version_expiration {
      noncurrent_days = 1
    }
    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }
  depends_on = [aws_s3_bucket_versioning.uploads]
}

# Each organization's writers may put objects below that organization's prefixes only. Every request needs TLS.
data "aws_iam_policy_document" "uploads" {
  dynamic "statement" {
    for_each = var.upload_writers
    content {
      sid       = "Writers${statement.key}"
      actions   = ["s3:PutObject"]
      resources = [for kind in ["ca", "server", "csr"] : "${local.uploads_arn}/${statement.key}/${kind}/*"]
      principals {
        type        = "AWS"
        identifiers = statement.value
      }
    }
  }
  dynamic "statement" {
    for_each = var.local ? [] : [1]
    content {
      sid       = "TLSOnly"
      effect    = "Deny"
      actions   = ["s3:*"]
      resources = [local.uploads_arn, "${local.uploads_arn}/*"]
      principals {
        type        = "*"
        identifiers = ["*"]
      }
      condition {
        test     = "Bool"
        variable = "aws:SecureTransport"
        values   = ["false"]
      }
    }
  }
}

resource "aws_s3_bucket_policy" "uploads" {
  count      = var.local && length(var.upload_writers) == 0 ? 0 : 1
  bucket     = aws_s3_bucket.uploads.id
  policy     = data.aws_iam_policy_document.uploads.json
  depends_on = [aws_s3_bucket_public_access_block.all]
}

resource "aws_s3_bucket_notification" "uploads" {
  bucket = aws_s3_bucket.uploads.id
  lambda_function {
    id                  = "on-upload"
    lambda_function_arn = aws_lambda_function.function[local.on_upload].arn
    events              = ["s3:ObjectCreated:*"]
  }
  depends_on = [aws_lambda_permission.uploads]
}

resource "aws_lambda_permission" "uploads" {
  statement_id   = "uploads"
  action         = "lambda:InvokeFunction"
  function_name  = aws_lambda_function.function[local.on_upload].function_name
  principal      = "s3.amazonaws.com"
  source_arn     = aws_s3_bucket.uploads.arn
  source_account = local.account
}
