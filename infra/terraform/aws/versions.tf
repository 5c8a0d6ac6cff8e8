terraform {
  required_version = ">= 1.6"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100, < 6.0"
    }
  }
}

provider "aws" {
  region                      = var.region
  skip_credentials_validation = var.local
  skip_metadata_api_check     = var.local
  skip_region_validation      = var.local
  s3_use_path_style           = var.local

  default_tags {
    tags = { app = var.name }
  }
}
